"""Links, joints and shapes of a robot, made from a MuJoCo model: as URDF for RViz, and as transforms of its frames.

The root link is `base_link`, MuJoCo's world frame. Each body below a root body of the robot is a link of its name. A
body with several joints gets one more link for each further joint, because a URDF joint has one degree of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp_ros.poses import axis_angle, composed, inverted, make_pose, orientation_of, position_of

Array = NDArray[np.float64]
Kind = Literal["fixed", "revolute", "continuous", "prismatic"]

BASE_LINK, TOOL_LINK = "base_link", "tool"
STILL = make_pose(np.zeros(3), [0.0, 0.0, 0.0, 1.0])
_SHOWN_GROUPS = 3  # MuJoCo draws the groups 0 to 2 unless it is told otherwise
_ANY_EFFORT, _ANY_VELOCITY, _ANY_TRAVEL_M = 1000.0, 10.0, 10.0  # URDF demands limits; nothing here uses them


@dataclass(frozen=True)
class Shape:
    """A visible part of a link: a URDF geometry with its attributes, at a pose (7,) in the link."""

    geometry: str  # box, cylinder, sphere or mesh
    attributes: Mapping[str, str]
    pose: Array
    rgba: tuple[float, float, float, float]


@dataclass(frozen=True)
class Link:
    name: str
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Joint:
    """A joint of one degree of freedom, or none; `origin` (7,) is the child's pose in the parent at position 0."""

    name: str
    kind: Kind
    parent: str
    child: str
    origin: Array
    axis: tuple[float, float, float] = (1.0, 0.0, 0.0)
    limits: tuple[float, float] = (0.0, 0.0)

    def transform(self, position: float) -> Array:
        """The child's pose (7,) in the parent; `position` [rad, or m where it slides]."""
        if self.kind == "fixed":
            return self.origin
        if self.kind == "prismatic":
            return composed(self.origin, make_pose(np.array(self.axis) * position, orientation_of(STILL)))
        return composed(self.origin, make_pose(np.zeros(3), axis_angle(self.axis, position)))


@dataclass(frozen=True)
class RobotModel:
    """A tree of links below `base_link`. Every joint comes after the one that its parent is the child of."""

    name: str
    links: tuple[Link, ...]
    joints: tuple[Joint, ...]

    def fixed(self) -> list[tuple[str, str, Array]]:
        """(parent, child, pose (7,) of the child) of the joints that do not move."""
        return [(j.parent, j.child, j.origin) for j in self.joints if j.kind == "fixed"]

    def moving(self, names: Sequence[str], positions: Sequence[float]) -> list[tuple[str, str, Array]]:
        """The same of the joints that move, at the positions of a joint state. KeyError where one is missing."""
        at = dict(zip(names, positions, strict=True))
        return [(j.parent, j.child, j.transform(at[j.name])) for j in self.joints if j.kind != "fixed"]

    def urdf(self) -> str:
        root = ElementTree.Element("robot", name=self.name)
        for link in self.links:
            element = ElementTree.SubElement(root, "link", name=link.name)
            for shape in link.shapes:
                visual = ElementTree.SubElement(element, "visual")
                _add_origin(visual, shape.pose)
                geometry = ElementTree.SubElement(visual, "geometry")
                ElementTree.SubElement(geometry, shape.geometry, dict(shape.attributes))
                _add_material(visual, shape.rgba)
        for joint in self.joints:
            element = ElementTree.SubElement(root, "joint", name=joint.name, type=joint.kind)
            _add_origin(element, joint.origin)
            ElementTree.SubElement(element, "parent", link=joint.parent)
            ElementTree.SubElement(element, "child", link=joint.child)
            if joint.kind == "fixed":
                continue
            ElementTree.SubElement(element, "axis", xyz=_words(joint.axis))
            limits = {"effort": f"{_ANY_EFFORT:g}", "velocity": f"{_ANY_VELOCITY:g}"}
            if joint.kind != "continuous":
                limits |= {"lower": _words(joint.limits[:1]), "upper": _words(joint.limits[1:])}
            ElementTree.SubElement(element, "limit", limits)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def make_robot_model(
    name: str, model: mujoco.MjModel, root: str, tool: tuple[str, ArrayLike], assets: Path | None = None
) -> RobotModel:
    """The robot of the body `root` and all bodies below it.

    tool: body that carries the tool's frame, and the frame's quaternion (4,) x, y, z, w in that body. assets: folder
    that the paths of the model's mesh files start from. FileNotFoundError where a mesh file is not there.
    """
    links, joints = [Link(BASE_LINK)], []
    first = model.body(root).id
    inside: set[int] = set()
    for body in range(model.nbody):
        parent = int(model.body_parentid[body])
        if body != first and parent not in inside:
            continue
        inside.add(body)
        steps = list(_joints(model, body, BASE_LINK if body == first else _body_name(model, parent)))
        links += [Link(joint.child) for joint in steps[:-1]]
        links.append(Link(_body_name(model, body), tuple(_shapes(model, body, assets))))
        joints += steps
    links.append(Link(TOOL_LINK))
    origin = make_pose(np.zeros(3), tool[1])
    joints.append(Joint(f"{tool[0]}_to_{TOOL_LINK}", "fixed", tool[0], TOOL_LINK, origin))
    return RobotModel(name, tuple(links), tuple(joints))


def pose_of(position_m: ArrayLike, quat_wxyz: ArrayLike) -> Array:
    """MuJoCo's position and quaternion (w first) -> pose (7,)."""
    w, x, y, z = np.asarray(quat_wxyz, np.float64)
    return make_pose(position_m, [x, y, z, w])


def _joints(model: mujoco.MjModel, body: int, parent: str) -> Iterator[Joint]:
    """The chain of joints from the link `parent` to that of `body`; the last one's child is the body's link.

    A hinge turns about an anchor that may lie beside the body's origin. Then a fixed joint leads back to the origin.
    """
    name = _body_name(model, body)
    origin = pose_of(model.body_pos[body], model.body_quat[body])
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    for number in range(first, first + count):
        joint, is_hinge = model.joint(number), model.jnt_type[number] == mujoco.mjtJoint.mjJNT_HINGE
        axis, rest = model.jnt_axis[number], -float(model.qpos0[model.jnt_qposadr[number]])
        anchor = make_pose(model.jnt_pos[number], orientation_of(STILL))
        at_rest = (
            make_pose(np.zeros(3), axis_angle(axis, rest))
            if is_hinge
            else make_pose(axis * rest, orientation_of(STILL))
        )
        is_last = number == first + count - 1 and not position_of(anchor).any()
        child = name if is_last else f"{joint.name}_link"
        is_limited = bool(model.jnt_limited[number])
        kind: Kind = ("revolute" if is_limited else "continuous") if is_hinge else "prismatic"
        low, high = (float(end) for end in model.jnt_range[number])
        if kind == "prismatic" and not is_limited:
            low, high = -_ANY_TRAVEL_M, _ANY_TRAVEL_M
        x, y, z = (float(number) for number in axis)
        start = composed(composed(origin, anchor), at_rest)
        yield Joint(joint.name, kind, parent, child, start, (x, y, z), (low, high))
        parent, origin = child, inverted(anchor)
    if parent != name:
        yield Joint(f"{parent}_to_{name}", "fixed", parent, name, origin)


def _shapes(model: mujoco.MjModel, body: int, assets: Path | None) -> Iterator[Shape]:
    """Visual geometry of a body, as MuJoCo draws it."""
    first = int(model.body_geomadr[body])
    for geom in range(first, first + int(model.body_geomnum[body])):
        material = int(model.geom_matid[geom])
        r, g, b, a = (float(c) for c in (model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]))
        if model.geom_group[geom] >= _SHOWN_GROUPS or a == 0.0:
            continue
        pose = pose_of(model.geom_pos[geom], model.geom_quat[geom])
        for geometry, attributes, place in _geometries(model, geom, assets):
            yield Shape(geometry, attributes, composed(pose, place), (r, g, b, a))


def _geometries(
    model: mujoco.MjModel, geom: int, assets: Path | None
) -> Iterator[tuple[str, dict[str, str], Array]]:
    """URDF geometries of a geom: name, attributes, and pose (7,) in the geom's frame. Planes and others have none."""
    kinds, (a, b, c) = mujoco.mjtGeom, (float(size) for size in model.geom_size[geom])
    kind = model.geom_type[geom]
    if kind == kinds.mjGEOM_MESH:
        yield _mesh(model, int(model.geom_dataid[geom]), assets)
    elif kind == kinds.mjGEOM_BOX:
        yield "box", {"size": _words((2 * a, 2 * b, 2 * c))}, STILL
    elif kind == kinds.mjGEOM_SPHERE:
        yield "sphere", {"radius": _words((a,))}, STILL
    elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
        yield "cylinder", {"radius": _words((a,)), "length": _words((2 * b,))}, STILL
        if kind == kinds.mjGEOM_CAPSULE:  # URDF has none
            for z in (-b, b):
                yield "sphere", {"radius": _words((a,))}, make_pose([0.0, 0.0, z], orientation_of(STILL))


def _mesh(model: mujoco.MjModel, mesh: int, assets: Path | None) -> tuple[str, dict[str, str], Array]:
    """The mesh file itself. MuJoCo turns a mesh into its principal axes, which the pose undoes."""
    start = int(model.mesh_pathadr[mesh])
    path = bytes(model.paths[start:]).split(b"\0", 1)[0].decode()
    file = ((assets or Path()) / path).resolve(strict=True)
    attributes = {"filename": file.as_uri(), "scale": _words(model.mesh_scale[mesh])}
    return "mesh", attributes, inverted(pose_of(model.mesh_pos[mesh], model.mesh_quat[mesh]))


def _body_name(model: mujoco.MjModel, body: int) -> str:
    return str(model.body(body).name) or f"body_{body}"


def _words(numbers: ArrayLike) -> str:
    rounded = np.round(np.atleast_1d(np.asarray(numbers, np.float64)), 9) + 0.0  # no -0
    return " ".join(f"{number:.9g}" for number in rounded)


def _add_origin(element: ElementTree.Element, pose: Array) -> None:
    rpy = _roll_pitch_yaw(orientation_of(pose))
    ElementTree.SubElement(element, "origin", xyz=_words(position_of(pose)), rpy=_words(rpy))


def _add_material(element: ElementTree.Element, rgba: tuple[float, float, float, float]) -> None:
    # Readers of URDF keep one material of a name, so the name says the colour.
    name = "rgba_" + "".join(f"{round(255 * channel):02x}" for channel in rgba)
    material = ElementTree.SubElement(element, "material", name=name)
    ElementTree.SubElement(material, "color", rgba=_words(rgba))


def _roll_pitch_yaw(quat_xyzw: Array) -> tuple[float, float, float]:
    """Turns about the fixed axes x, y and z, in this order [rad]."""
    x, y, z, w = (float(number) for number in quat_xyzw)
    sine = 2.0 * (w * y - x * z)
    if abs(sine) > 1.0 - 1e-12:  # x points along z: roll and yaw are one turn
        sign = math.copysign(1.0, sine)
        return 0.0, sign * math.pi / 2.0, -sign * 2.0 * math.atan2(x, w)
    roll = math.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
    yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return roll, math.asin(sine), yaw
