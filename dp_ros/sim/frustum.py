"""Frustum culling: the geoms that a camera cannot see, found before they are drawn.

A mesh behind the camera costs as much as one in front of it, because each of its vertices is transformed and lit. The
test errs on the side of drawing, so that pictures with and without it are equal, bit by bit.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BOXES = 64  # around parts of a mesh; a power of two
_MIN_FACES = 500  # smaller meshes are drawn faster than their boxes are tested
_MARGIN = 1e-3  # of the scene's extent: MuJoCo draws in single precision


class FrustumCulling:
    """Bounds of a model's geoms, and their test against the frustum of a camera.

    Never culled: planes, which may be infinite, and reflective boxes, because MuJoCo draws the first reflective geom of
    a scene in a way of its own. What is no geom of the model (sites, tendons, skins, flexes) is not tested here.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        kind, material = model.geom_type, model.geom_matid
        reflects = np.zeros(model.ngeom, bool)
        reflects[material >= 0] = model.mat_reflectance[material[material >= 0]] > 0
        self._may_hide: Mask = (kind != mujoco.mjtGeom.mjGEOM_PLANE) & ~(
            (kind == mujoco.mjtGeom.mjGEOM_BOX) & reflects
        )
        self._margin_m = _MARGIN * model.stat.extent
        is_large = kind == mujoco.mjtGeom.mjGEOM_MESH
        is_large[is_large] = model.mesh_facenum[model.geom_dataid[is_large]] >= _MIN_FACES
        self._meshes = np.flatnonzero(is_large)  # geoms that have boxes
        boxes = {
            mesh: _boxes_of_mesh(model, mesh) for mesh in np.unique(model.geom_dataid[is_large]).tolist()
        }
        stacked = np.array([boxes[mesh] for mesh in model.geom_dataid[is_large].tolist()], float)
        self._centre, self._half = stacked.reshape(-1, 2, _BOXES, 3).swapaxes(0, 1)  # (meshes, boxes, 3) each

    def hidden(self, data: mujoco.MjData, camera: mujoco.MjvGLCamera, aspect: float) -> Mask:
        """Geoms (ngeom,) outside the camera's frustum; `aspect` is the picture's width by its height."""
        if camera.orthographic:
            return np.zeros(self._model.ngeom, bool)
        normals = _outward_normals(camera, aspect)  # (5, 3)
        out_m = (data.geom_xpos - camera.pos) @ normals.T - self._margin_m  # (ngeom, 5)
        hidden: Mask = (out_m > self._model.geom_rbound[:, None]).any(1) & self._may_hide
        unsure = ~hidden[self._meshes]
        meshes = self._meshes[unsure]
        if len(meshes):
            turned = (normals @ data.geom_xmat[meshes].reshape(-1, 3, 3)).swapaxes(1, 2)  # (meshes, 3, 5)
            box_out_m = (
                self._centre[unsure] @ turned - self._half[unsure] @ np.abs(turned) + out_m[meshes, None]
            )
            hidden[meshes] = (box_out_m > 0).any(2).all(1)
        return hidden


def _outward_normals(camera: mujoco.MjvGLCamera, aspect: float) -> Array:
    """Unit normals (5, 3), world frame, of the planes through the eye that bound what it sees; the first is behind it.

    Near and far plane are left out: they hide little.
    """
    half = camera.frustum_width or 0.5 * aspect * (camera.frustum_top - camera.frustum_bottom)
    near, centre = camera.frustum_near, camera.frustum_center
    in_camera = np.array(  # along right, up and forward
        [
            (0.0, 0.0, -1.0),
            (near, 0.0, -(centre + half)),
            (-near, 0.0, centre - half),
            (0.0, near, -camera.frustum_top),
            (0.0, -near, camera.frustum_bottom),
        ]
    )
    in_camera /= np.sqrt((in_camera**2).sum(1, keepdims=True))
    (x, y, z), (i, j, k) = forward, up = camera.forward.tolist(), camera.up.tolist()
    right = [y * k - z * j, z * i - x * k, x * j - y * i]
    normals: Array = in_camera @ np.array([right, up, forward])
    return normals


def _boxes_of_mesh(model: mujoco.MjModel, mesh: int) -> Array:
    """Centres and half sizes (2, _BOXES, 3), in the mesh's frame, of boxes that together contain each face whole."""
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]].astype(float)
    faces = vertices[model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]]  # (faces, 3, 3)
    parts = [faces]
    while len(parts) < _BOXES:
        parts = [half for part in parts for half in _halves(part)]
    low = np.array([part.min((0, 1)) for part in parts])
    high = np.array([part.max((0, 1)) for part in parts])
    return np.stack([(low + high) / 2, (high - low) / 2])


def _halves(faces: Array) -> tuple[Array, Array]:
    """The faces (n, 3, 3), n >= 2, on both sides of the median along the axis on which their centres spread most."""
    centres = faces.mean(1)
    order = np.argsort(centres[:, np.argmax(np.ptp(centres, axis=0))], kind="stable")
    return faces[order[: len(faces) // 2]], faces[order[len(faces) // 2 :]]
