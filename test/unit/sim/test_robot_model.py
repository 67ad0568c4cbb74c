"""URDF of the simulated robots, read by a reader of the test's own: it moves and looks as in MuJoCo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

pytest.importorskip("mujoco")

import mujoco

from dp_ros.sim.arm import ArmSpec, make_arm
from dp_ros.sim.mujoco_arm import MujocoArm
from dp_ros.sim.robot_model import make_robot_model

pytestmark = pytest.mark.sim
Matrix = NDArray[np.float64]

TURNED = """
<mujoco>
  <worldbody>
    <body name="upper" pos="0.1 0.2 0.3" euler="20 90 -30">
      <joint name="swing" type="hinge" axis="0.6 0 0.8" pos="0.1 0 0.05" range="-2 2" ref="20"/>
      <joint name="rise" type="slide" axis="0 1 0" range="-0.1 0.2" ref="0.05"/>
      <geom type="capsule" size="0.02 0.1" pos="0 0.1 0" euler="90 0 0"/>
      <body pos="0 0.3 0" euler="0 -90 0">
        <joint name="spin" type="hinge" axis="0 0 -1"/>
        <geom type="sphere" size="0.03"/>
      </body>
    </body>
    <body name="block" pos="1 0 0"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>
  </worldbody>
</mujoco>
"""


def matrix(xyz: NDArray[np.float64], turn: Rotation) -> Matrix:
    made = np.eye(4)
    made[:3, :3], made[:3, 3] = turn.as_matrix(), xyz
    return made


def origin_of(element: ElementTree.Element) -> Matrix:
    origin = element.find("origin")
    assert origin is not None
    return matrix(numbers(origin, "xyz"), Rotation.from_euler("xyz", numbers(origin, "rpy")))


def numbers(element: ElementTree.Element, name: str) -> NDArray[np.float64]:
    return np.array([float(word) for word in element.attrib[name].split()])


def forward_kinematics(urdf: str, positions: dict[str, float]) -> dict[str, Matrix]:
    """Pose (4, 4) of each link in the root link."""
    joints = ElementTree.fromstring(urdf.encode()).findall("joint")
    poses = {"base_link": np.eye(4)}
    while len(poses) <= len(joints):
        known = len(poses)
        for joint in joints:
            parent, child = (joint.find(end).attrib["link"] for end in ("parent", "child"))  # type: ignore[union-attr]
            if parent not in poses or child in poses:
                continue
            move, kind = np.eye(4), joint.attrib["type"]
            if kind != "fixed":
                along = numbers(joint.find("axis"), "xyz") * positions[joint.attrib["name"]]  # type: ignore[arg-type]
                move = (
                    matrix(along, Rotation.identity())
                    if kind == "prismatic"
                    else matrix(np.zeros(3), Rotation.from_rotvec(along))
                )
            poses[child] = poses[parent] @ origin_of(joint) @ move
        assert len(poses) > known, "the joints are no tree below base_link"
    return poses


@pytest.fixture(params=["drawer-open-v3", "tiny-push-tilt30"])
def arm(request: pytest.FixtureRequest) -> Iterator[MujocoArm]:
    made = make_arm(ArmSpec(request.param))
    assert isinstance(made, MujocoArm)
    yield made
    made.close()


def test_forward_kinematics_are_those_of_the_simulator(arm: MujocoArm) -> None:
    urdf, rng = arm.robot_model().urdf(), np.random.default_rng(0)
    arm.reset(0)
    for _ in range(5):
        names, _ = arm.joint_positions()
        for name in names:
            low, high = arm.model.joint(name).range
            arm.data.joint(name).qpos[0] = rng.uniform(low, high) if low < high else rng.uniform(-0.5, 0.5)
        mujoco.mj_kinematics(arm.model, arm.data)
        poses = forward_kinematics(urdf, dict(zip(*arm.joint_positions(), strict=True)))
        bodies = [name for name in poses if mujoco.mj_name2id(arm.model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0]
        assert len(bodies) > (20 if "drawer" in arm.spec.task else 2)
        for name in bodies:
            body = arm.data.body(name)
            np.testing.assert_allclose(poses[name][:3, 3], body.xpos, atol=1e-4)
            np.testing.assert_allclose(poses[name][:3, :3].ravel(), body.xmat, atol=1e-4)


def test_tool_is_where_the_arm_measures_it(arm: MujocoArm) -> None:
    observation = arm.reset(3)
    poses = forward_kinematics(arm.robot_model().urdf(), dict(zip(*arm.joint_positions(), strict=True)))
    np.testing.assert_allclose(poses["tool"][:3, 3], observation.ee_pose[:3], atol=1e-3)
    turn = Rotation.from_matrix(poses["tool"][:3, :3]).inv() * Rotation.from_quat(observation.ee_pose[3:])
    assert turn.magnitude() < 1e-2  # Metaworld's measured pose is one substep older than its joints


def test_transforms_are_those_of_the_urdf_and_one_tree(arm: MujocoArm) -> None:
    arm.reset(1)
    model = arm.robot_model()
    names, positions = arm.joint_positions()
    expected = forward_kinematics(model.urdf(), dict(zip(names, positions, strict=True)))
    transforms = [*model.fixed(), *model.moving(names, positions)]
    children = [child for _, child, _ in transforms]
    assert len(set(children)) == len(children) == len(expected) - 1
    for parent, child, pose in transforms:
        made = expected[parent] @ matrix(pose[:3], Rotation.from_quat(pose[3:]))
        np.testing.assert_allclose(made, expected[child], atol=1e-6)


def test_anchors_rest_positions_and_poles_of_the_angles_are_kept() -> None:
    model = mujoco.MjModel.from_xml_string(TURNED)
    data = mujoco.MjData(model)
    robot = make_robot_model("turned", model, "upper", ("upper", [0.0, 0.0, 0.0, 1.0]))
    assert {joint.name: joint.kind for joint in robot.joints if joint.kind != "fixed"} == {
        "swing": "revolute",
        "rise": "prismatic",
        "spin": "continuous",
    }
    rng = np.random.default_rng(1)
    for _ in range(5):
        positions = {name: float(rng.uniform(-1, 1)) for name in ("swing", "rise", "spin")}
        for name, position in positions.items():
            data.joint(name).qpos[0] = position
        mujoco.mj_kinematics(model, data)
        poses = forward_kinematics(robot.urdf(), positions)
        for name, body in (("upper", 1), ("body_2", 2)):
            np.testing.assert_allclose(poses[name][:3, 3], data.xpos[body], atol=1e-6)
            np.testing.assert_allclose(poses[name][:3, :3].ravel(), data.xmat[body], atol=1e-6)
    shapes = {link.name: [shape.geometry for shape in link.shapes] for link in robot.links}
    assert shapes["upper"] == ["cylinder", "sphere", "sphere"]
    assert "block" not in shapes


def test_meshes_are_metaworlds_own_files_where_the_simulator_draws_them() -> None:
    """MuJoCo moves a mesh into its principal axes; the file's own vertices at the URDF's pose must be the same."""
    arm = make_arm(ArmSpec("drawer-open-v3"))
    assert isinstance(arm, MujocoArm)
    arm.reset(0)
    urdf = arm.robot_model().urdf()
    poses = forward_kinematics(urdf, dict(zip(*arm.joint_positions(), strict=True)))
    seen = 0
    for link in ElementTree.fromstring(urdf.encode()).findall("link"):
        for visual in link.findall("visual"):
            mesh = visual.find("geometry/mesh")
            if mesh is None:
                continue
            seen += 1
            url = urlparse(mesh.attrib["filename"])
            assert url.scheme == "file"
            file = Path(unquote(url.path))
            assert "metaworld" in file.parts
            place = poses[link.attrib["name"]] @ origin_of(visual)
            vertices = stl_vertices(file) * numbers(mesh, "scale") @ place[:3, :3].T + place[:3, 3]
            drawn = drawn_vertices(arm, file.name)
            np.testing.assert_allclose(vertices.min(0), drawn.min(0), atol=1e-3)
            np.testing.assert_allclose(vertices.max(0), drawn.max(0), atol=1e-3)
    assert seen == 11
    arm.close()


def stl_vertices(file: Path) -> NDArray[np.float64]:
    """Vertices (n, 3) of a binary STL file."""
    record = np.dtype([("normal", "<3f4"), ("vertices", "<9f4"), ("attribute", "<u2")])
    return np.frombuffer(file.read_bytes()[84:], record)["vertices"].reshape(-1, 3).astype(np.float64)


def drawn_vertices(arm: MujocoArm, file_name: str) -> NDArray[np.float64]:
    """Vertices (n, 3) of the geom of that file, world frame."""
    model, data = arm.model, arm.data
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
        mesh = model.geom_dataid[geom]
        path = bytes(model.paths[model.mesh_pathadr[mesh] :]).split(b"\0", 1)[0].decode()
        if Path(path).name == file_name:
            first = model.mesh_vertadr[mesh]
            own = model.mesh_vert[first : first + model.mesh_vertnum[mesh]].astype(np.float64)
            drawn: NDArray[np.float64] = own @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            return drawn
    raise AssertionError(f"no geom of {file_name}")
