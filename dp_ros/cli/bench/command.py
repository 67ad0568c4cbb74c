"""`dp_ros bench`: speed and losses of the parts on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dp_ros.cli.bench.results import write
from dp_ros.cli.bench.train_command import train
from dp_ros.cli.options import (
    Checkpoint,
    EngineOption,
    Iterations,
    Jobs,
    JsonFile,
    Precision,
    SpacingOption,
    Threads,
    typed_config,
)

app = typer.Typer(help="Measure speed and losses of the parts on this machine.")
app.command()(train)


@app.command()
def render(
    task: Annotated[str, typer.Option(help="Metaworld task.")] = "drawer-open-v3",
    camera: Annotated[str, typer.Option(help="Camera to render.")] = "gripperPOV",
    size: Annotated[int, typer.Option(min=16, max=480, help="Width and height in pixels.")] = 224,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to measure.")] = 20.0,
    json_path: JsonFile = None,
) -> None:
    """Compare the renderer of dp_ros with Metaworld's, interleaved: milliseconds per frame.

    Example: dp_ros bench render --json runs/render.json
    """
    from dp_ros.cli.bench.render import compare_renderers
    from dp_ros.sim.arm import check_task

    data = compare_renderers(check_task(task), camera, size, seconds)
    print(
        f"{data['task']} {camera} {size}x{size} px, {data['backend']}, median ms/frame: "
        f"metaworld {data['metaworld']['median_ms']:.2f}, dp_ros {data['dp_ros']['median_ms']:.2f}, "
        f"ratio {data['ratio']:.1f}; of the processor's time: metaworld {data['metaworld']['processor_ms']:.2f}, "
        f"dp_ros {data['dp_ros']['processor_ms']:.2f}, ratio {data['processor_ratio']:.1f}"
    )
    write(json_path, data)


@app.command()
def transport(
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to measure each size.")] = 5.0,
    json_path: JsonFile = None,
) -> None:
    """Measure the round trip of a picture and its command over DDS, without a policy: milliseconds.

    Example: dp_ros bench transport
    """
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.bench.transport import bench_transport

    data = bench_transport(seconds)
    for size in data["transport"]:
        trip = (
            "no answer"
            if size["p50_ms"] is None
            else f"p50 {size['p50_ms']:.2f}, p99 {size['p99_ms']:.2f} ms"
        )
        print(
            f"{size['width_px']}x{size['height_px']} px at {size['rate_hz']:g} Hz: {trip}, "
            f"{size['answered']} of {size['sent']} answered"
        )
    write(json_path, data)


@app.command()
def inference(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            show_default=False,
            help="Checkpoint or run folder, or a name in models/: measure its plans alone, without LeRobot.",
        ),
    ] = None,
    engines: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            help="Engine to measure; repeat for more. Default: all of a CPU. With cuda, LeRobot has the GPU, too.",
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            show_default="128,256,512 and 256,512,1024", help="Channels of the U-Net; repeat for more."
        ),
    ] = None,
    horizons: Annotated[
        list[int] | None,
        typer.Option("--horizon", show_default="8", help="Actions of a chunk, T_p; repeat for more."),
    ] = None,
    pixels: Annotated[
        list[int] | None,
        typer.Option(show_default="96", help="Width and height of the picture; repeat for more."),
    ] = None,
    all_sizes: Annotated[
        bool, typer.Option("--all", help="Twelve sizes, up to 512,1024,2048 channels, T_p 16 and 224 pixels.")
    ] = False,
    plans: Annotated[
        int | None,
        typer.Option(min=1, show_default="40; 200 of a checkpoint", help="Number of measured plans of each."),
    ] = None,
    json_path: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the results.")] = None,
) -> None:
    """Compare plans of the engines with LeRobot's of the same weights, interleaved; or time those of a checkpoint.

    Example: dp_ros bench inference drawer-open-v3-unet
    """
    from dp_ros.cli.bench import inference as bench
    from dp_ros.cli.bench import inference_report as report
    from dp_ros.cli.console import check_outputs
    from dp_ros.cli.errors import USAGE, CliError
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    sized = bool(channels or horizons or pixels)
    if checkpoint and (sized or all_sizes or plot):
        raise CliError("--channels, --horizon, --pixels, --all and --plot are for no checkpoint", USAGE)
    if sized and all_sizes:
        raise CliError("--all has its own sizes: leave out --channels, --horizon and --pixels", USAGE)
    names = bench.check_engines(engines)
    check_outputs(files=[json_path, plot])
    if checkpoint:
        data = bench.measure_checkpoint(find_checkpoint(checkpoint), names, plans or 200)
        report.print_checkpoint(data)
        write(json_path, data)
        return
    sizes = bench.ALL_SIZES if all_sizes else bench.sizes_of(channels, horizons, pixels)
    results = []
    for result in bench.compare_inference(sizes, names, plans or 40):
        report.print_size(result)
        results.append(result)
        data = bench.summary(results)
        write(json_path, data)  # after each size: a later one may need more memory than there is
    report.print_summary(data)
    if plot:
        report.save_plot(results, plot)


@app.command()
def realtime(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint or run folder, or a name in models/.")
    ] = "drawer-open-v3-unet",
    seconds: Annotated[
        float, typer.Option(min=0.5, help="Time to measure, after up to two seconds that warm up.")
    ] = 20.0,
    iterations: Iterations = 0,
    spacing: SpacingOption = "checkpoint",
    engine: EngineOption = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    json_path: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the results.")] = None,
) -> None:
    """Measure what the policy node adds to a plan in real time, from picture to command over DDS: milliseconds.

    Example: dp_ros bench realtime
    """
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.cli.bench import realtime_report as report
    from dp_ros.cli.console import check_outputs
    from dp_ros.inference.engine import choose_engine
    from dp_ros.policy.checkpoint_config import policy_config
    from dp_ros.policy.checkpoint_folder import find_checkpoint
    from dp_ros.ros.bench.realtime import serve_in_real_time
    from dp_ros.schema import RuntimeConfig

    settings = {
        "engine": engine, "precision": precision, "threads": threads, "sampler_iterations": iterations,
        "sampler_spacing": spacing,
    }  # fmt: skip
    runtime = typed_config(RuntimeConfig, settings)
    folder = find_checkpoint(checkpoint)
    check_outputs(files=[json_path, plot])
    runtime, why = choose_engine(folder, runtime)
    noted = serve_in_real_time(folder, runtime, seconds)
    engine_name = f"{runtime.engine} {runtime.precision}"
    data = {"checkpoint": str(folder), "engine": engine_name, "why": why}
    data |= report.summary(noted, policy_config(folder).rate_hz, seconds)
    report.print_summary(data)
    write(json_path, data)
    if plot:
        report.save_plot(data, plot)


@app.command()
def record(
    seconds: Annotated[float, typer.Option(min=1.0, help="Time of each recording.")] = 60.0,
    kills: Annotated[int, typer.Option(min=0, help="Number of times the recorder is killed.")] = 50,
    json_path: JsonFile = None,
) -> None:
    """Count what the recorder loses: of the simulated robot in real time, of two VGA cameras, and when it is killed.

    Example: dp_ros bench record
    """
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.bench.record import bench_record

    data = bench_record(seconds, kills)
    for run in data["runs"]:
        print(
            f"{run['what']} for {run['seconds']:.1f} s: {run['recorded']} of {run['expected']} pictures recorded, "
            f"{run['missing']} missing, {run['dropped']} dropped by the recorder; {run['rate_hz']:.1f} Hz, "
            f"{run['mb_per_s']:.1f} MB/s"
        )
    if killed := data["kills"]:
        lost_s = sorted(killed["lost_s"])
        print(
            f"killed {killed['kills']} times: {killed['reopened']} bags reopened; lost at most {lost_s[-1]:.2f} s, "
            f"median {lost_s[len(lost_s) // 2]:.2f} s"
        )
    write(json_path, data)


@app.command()
def convert(
    seconds: Annotated[float, typer.Option(min=1.0, help="Recorded time of all bags together.")] = 600.0,
    size: Annotated[
        int, typer.Option(min=32, max=480, help="Width and height of the pictures in pixels.")
    ] = 224,
    bags: Annotated[int, typer.Option(min=1, help="Number of bags.")] = 2,
    jobs: Jobs = -1,
    json_path: JsonFile = None,
) -> None:
    """Measure the conversion of bags with one camera at 80 Hz: speed against real time, and peak memory.

    Example: dp_ros bench convert
    """
    from dp_ros.cli.bench.convert import measure_conversion

    data = measure_conversion(seconds, size, bags, jobs)
    print(
        f"{data['bags']} bags, {data['seconds']:.0f} s of {size}x{size} px at 80 Hz, {data['bag_mb']:.0f} MB: "
        f"{data['took_s']:.1f} s, {data['ratio']:.1f} times real time; peak memory {data['peak_mb']:.0f} MB in all "
        f"processes, {data['peak_mb_of_one']:.0f} MB in the largest"
    )
    write(json_path, data)


@app.command("eval")
def evaluation(
    checkpoint: Checkpoint,
    jobs: Annotated[int, typer.Option(min=2, help="Number of processes to compare with one.")] = 2,
    rounds: Annotated[
        int, typer.Option(min=1, help="Number of interleaved blocks, after one that warms up.")
    ] = 5,
    max_steps: Annotated[int, typer.Option(min=1, help="Time limit of an episode in ticks.")] = 40,
    json_path: JsonFile = None,
) -> None:
    """Compare episodes on several processes with one process, interleaved: ticks per second.

    Example: dp_ros bench eval drawer-open-v3-unet --json runs/bench.json
    """
    from dp_ros.cli.bench.eval import compare_jobs
    from dp_ros.policy.checkpoint_folder import find_checkpoint

    data = compare_jobs(find_checkpoint(checkpoint), jobs, rounds, max_steps)

    def speed(name: str) -> str:
        side = data[name]
        return f"threads {side['threads']}: {side['median_hz']:.1f} ticks/s"

    print(
        f"{data['task']}, median of {rounds} rounds: {jobs} processes, {speed('many')}; 1 process, {speed('equal')} "
        f"(ratio {data['ratio']['equal']:.2f}), {speed('one')} (ratio {data['ratio']['one']:.2f}); "
        f"{data['same_results']:.0%} of the episodes have the same result"
    )
    write(json_path, data)


@app.command()
def gate(
    inputs: Annotated[int, typer.Option(min=1, help="Number of inputs, one control tick each.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the inputs.")] = 0,
    jobs: Jobs = 1,
    json_path: JsonFile = None,
) -> None:
    """Attack the safety gate with broken frames, clocks and plans; it fails where a command exceeds a limit.

    Example: dp_ros bench gate
    """
    from dp_ros.cli.bench.gate import attack_gate
    from dp_ros.cli.errors import CliError

    data = attack_gate(inputs, seed, jobs)
    write(json_path, data)
    shares = ", ".join(f"{name} {share:.3f}" for name, share in data["shares"].items())
    verdicts = ", ".join(f"{name} {count}" for name, count in sorted(data["verdicts"].items()))
    print(f"{data['inputs']} inputs, {data['commands']} commands in {data['took_s']:.0f} s: {verdicts}")
    print(f"largest share of each limit: {shares}")
    if not data["is_safe"]:
        raise CliError(
            f"a command exceeded a limit ({data['broken']} commands are broken): see the shares above"
        )


@app.command()
def pictures(
    messages: Annotated[int, typer.Option(min=1, help="Number of image messages.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the messages.")] = 0,
    json_path: JsonFile = None,
) -> None:
    """Attack the way from image messages to frames; it fails where one does more harm than a lost frame.

    Example: dp_ros bench pictures --messages 1000000
    """
    from dp_ros.cli.errors import CliError
    from dp_ros.ros.processes.environment import require_ros

    require_ros()
    from dp_ros.ros.bench.pictures import attack_pictures

    data = attack_pictures(messages, seed)
    write(json_path, data)
    outcomes = ", ".join(f"{name} {count}" for name, count in data["outcomes"].items())
    print(f"{data['messages']} messages in {data['took_s']:.0f} s: {outcomes}")
    print(f"peak memory grew by {data['grown_mb']:.0f} MB; the slowest took {data['slowest_ms']:.1f} ms")
    if not data["is_safe"]:
        raise CliError(
            "a message raised, made a wrong picture, or cost the next frame: see the numbers above"
        )
