"""Random projections against explicit matrices, their statistics, and their bits."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch

from softde.optim import projections
from softde.optim.projections import (
    KINDS,
    Fastfood,
    Gaussian,
    Sparse,
    hadamard,
    nearest,
    projection,
    rowwise_product,
)

every = pytest.mark.parametrize("kind", KINDS)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sylvester(p: int) -> np.ndarray:
    """The Hadamard matrix of order p."""
    return np.ones((1, 1)) if p == 1 else np.kron([[1, 1], [1, -1]], sylvester(p // 2))


def matrix_of(project) -> np.ndarray:
    """A written out from its images of unit vectors, float64."""
    return project(torch.eye(project.intrinsic_dim)).double().numpy()


# ---- against explicit matrices -------------------------------------------------------------------------------------


def test_the_gaussian_is_the_draw_that_files_were_made_with() -> None:
    A = torch.randn(7, 48, generator=torch.Generator().manual_seed(3)) / 7**0.5
    project, z = projection("gaussian", 7, 48, 3), normal(5, 7)
    assert torch.equal(project.matrix, A)
    assert torch.equal(project(z), torch.stack([row @ A for row in z]))  # bit by bit what PromptSpace computed


def test_a_sparse_projection_by_its_draws() -> None:
    project = Sparse(10, 40, 1, nonzeros=3)
    chosen, factor = project._draw
    A = np.zeros((10, 40))
    for m in range(3):
        for j in range(40):
            A[int(chosen[m, j]), j] += float(factor[m, j])
    assert ((A != 0).sum(0) == 3).all()  # no coordinate of z comes twice in one of x
    assert np.allclose(np.abs(A[A != 0]), 3**-0.5)
    parts = [range(3), range(3, 6), range(6, 10)]  # one from each part, each reached
    assert all(set(chosen[m].tolist()) == set(parts[m]) for m in range(3))
    z = normal(4, 10)
    assert np.allclose(project(z).numpy(), z.double().numpy() @ A, atol=1e-6)


def test_a_count_sketch_is_one_signed_copy_each() -> None:
    project, z = Sparse(6, 50, 2, nonzeros=1), normal(1, 6)
    assert {round(abs(v), 6) for v in project(z)[0].tolist()} <= {round(abs(v), 6) for v in z[0].tolist()}


@pytest.mark.parametrize(("small", "large"), [(8, 24), (5, 21), (1, 3), (16, 16), (9, 16)])
def test_fastfood_is_h_g_pi_h_b(small: int, large: int) -> None:
    project = Fastfood(small, large, 4)
    B, order, G = (part.double().numpy() for part in project._draw)
    blocks, p = B.shape
    H = sylvester(p)
    rows = []
    for b in range(blocks):
        P = np.zeros((p, p))
        for i, place in enumerate(order.astype(int).reshape(blocks, p)[b] - b * p):
            P[i, place] = 1
        assert (P.sum(0) == 1).all()  # a permutation
        rows.append(H @ np.diag(G[b]) @ P @ H @ np.diag(B[b]))
        assert (G[b] ** 2).sum() == pytest.approx(1 / small)  # ‖G‖² = p over the factor p d
    V = np.concatenate(rows)[:large, :small]
    z = normal(4, small)
    assert np.allclose(project(z).numpy(), z.double().numpy() @ V.T, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2, 8, 64])
def test_the_fast_transform_is_sylvesters_matrix(p: int) -> None:
    values = normal(2, 3, p).double()
    assert np.allclose(hadamard(values).numpy(), values.numpy() @ sylvester(p), atol=1e-12)


# ---- what all have in common ---------------------------------------------------------------------------------------


@every
def test_coordinates_have_unit_variance(kind: str) -> None:
    for d in (16, 20, 33):
        variances = torch.stack([projection(kind, d, 512, seed)(normal(400, d, seed=seed)).var(0) for seed in range(8)])
        assert float(variances.mean()) == pytest.approx(1, abs=0.05)
    assert float(projection(kind, 64, 4096, 0)(normal(50, 64)).mean()) == pytest.approx(0, abs=0.02)


def test_fastfood_with_a_power_of_two_has_unit_variance_in_every_coordinate() -> None:
    A = matrix_of(Fastfood(32, 320, 0))
    assert np.allclose((A**2).sum(0), 1, atol=1e-5)  # and any sparse one, by construction:
    assert np.allclose((matrix_of(Sparse(32, 320, 0)) ** 2).sum(0), 1, atol=1e-5)


@every
def test_norms_and_inner_products_are_kept_up_to_a_factor(kind: str) -> None:
    d, dim = 50, 8192
    errors = []
    for seed in range(6):
        z = torch.nn.functional.normalize(normal(12, d, seed=seed), dim=1)
        z[0] = torch.eye(d)[seed]  # a unit vector is the hardest for a sparse map
        x = projection(kind, d, dim, seed)(z) * (d / dim) ** 0.5
        errors.append((x @ x.T - z @ z.T).abs())
    # The error of an inner product is about 1/√dim for a Gaussian; a few times that for structured maps.
    assert float(torch.stack(errors).max()) < 0.2 and float(torch.stack(errors).mean()) < 0.02


@every
def test_linear_and_adjoint(kind: str) -> None:
    project = projection(kind, 12, 100, 5)
    a, b, x = normal(3, 12), normal(3, 12, seed=1), normal(3, 100, seed=2)
    assert torch.allclose(project(2 * a - 3 * b), 2 * project(a) - 3 * project(b), atol=1e-5)
    assert not project(torch.zeros(2, 12)).any()
    A = matrix_of(project)
    assert np.allclose(project.adjoint(x).numpy(), 12 / 100 * x.double().numpy() @ A.T, atol=1e-5)


@every
def test_nearest_is_least_squares(kind: str) -> None:
    project = projection(kind, 10, 90, 1)
    A, x = matrix_of(project), normal(4, 90)
    x[1] = 0.0
    expected = np.linalg.lstsq(A.T, x.double().numpy().T, rcond=None)[0].T
    assert np.allclose(nearest(project, x).numpy(), expected, atol=1e-4)
    z = normal(4, 10, seed=7)
    assert torch.allclose(nearest(project, project(z)), z, atol=1e-4)
    assert torch.equal(nearest(project, x)[2:3], nearest(project, x[2:3]))


@every
def test_the_adjoint_is_nearly_the_nearest_point(kind: str) -> None:
    project, z = projection(kind, 16, 8192, 0), normal(20, 16)
    back = project.adjoint(project(z))
    assert float((back - z).norm() / z.norm()) < 4 * math.sqrt(16 / 8192)


@every
def test_seeds(kind: str) -> None:
    z = normal(2, 9)
    assert torch.equal(projection(kind, 9, 70, 1)(z), projection(kind, 9, 70, 1)(z))
    assert not torch.allclose(projection(kind, 9, 70, 1)(z), projection(kind, 9, 70, 2)(z), atol=0.1)


@every
@pytest.mark.parametrize(("d", "dim"), [(5, 33), (37, 1001), (128, 4096)])
def test_bits_of_a_row_do_not_depend_on_the_others(kind: str, d: int, dim: int) -> None:
    project, z, x = projection(kind, d, dim, 0), normal(21, d), normal(21, dim)
    with mock.patch.object(projections, "BLOCK", 2**12):  # several blocks
        images, back = project(z), project.adjoint(x)
        for part in (slice(0, 1), slice(7, 8), slice(3, 12), slice(20, 21)):
            assert torch.equal(project(z[part]), images[part])
            assert torch.equal(project.adjoint(x[part]), back[part])
    assert project(z[:0]).shape == (0, dim) and project.adjoint(x[:0]).shape == (0, d)


@every
def test_gradients(kind: str) -> None:
    project, z = projection(kind, 6, 40, 0), normal(3, 6).requires_grad_()
    with torch.inference_mode():  # a map that was first used in inference mode gives gradients all the same
        project(normal(1, 6))
    weights = normal(3, 40, seed=9)
    (project(z) * weights).sum().backward()
    assert np.allclose(z.grad.numpy(), weights.double().numpy() @ matrix_of(project).T, atol=1e-5)
    assert project(z.double()).dtype == torch.float32


def test_a_rowwise_product_and_its_gradient() -> None:
    matrix, z = normal(9, 70), normal(4, 9).requires_grad_()
    product = rowwise_product(z, matrix)
    assert torch.equal(product, torch.stack([row @ matrix for row in z]))
    product.sum().backward()
    assert torch.allclose(z.grad, matrix.sum(1).expand(4, -1), atol=1e-5)


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "dim"), [(3, 4), (5, 33), (40, 101), (100, 96)])
def test_a_matrix_that_is_drawn_anew_has_the_numbers_of_the_stored_one(d: int, dim: int) -> None:
    if d > dim:
        d, dim = dim, d
    stored, drawn = Gaussian(d, dim, 2), Gaussian(d, dim, 2, limit=0)
    assert stored.matrix is not None and drawn.matrix is None
    with mock.patch.object(projections, "BLOCK", 1):  # blocks of 16 rows
        assert torch.equal(torch.cat([rows for _, rows in drawn.blocks()]), stored.matrix)
        z, x = normal(3, d), normal(3, dim)
        assert torch.allclose(drawn(z), stored(z), atol=1e-5)
        assert torch.allclose(drawn.adjoint(x), stored.adjoint(x), atol=1e-5)
        assert torch.equal(drawn(z[1:2]), drawn(z)[1:2])
        z.requires_grad_()
        (drawn(z) * x).sum().backward()
        assert torch.allclose(z.grad, x @ stored.matrix.T, atol=1e-5)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.numbers = max(self.numbers, storage)
        return result


@pytest.mark.parametrize("kind", ["drawn", "sparse", "fastfood"])
def test_no_matrix_is_made_beyond_the_limit(kind: str) -> None:
    d, dim, n = 500, 3000, 2
    project = Gaussian(d, dim, 0, limit=10**6) if kind == "drawn" else projection(kind, d, dim, 0)
    with mock.patch.object(projections, "BLOCK", 2**16), Largest() as seen:
        project.adjoint(project(normal(n, d)))
    assert 0 < seen.numbers < d * dim / 20
    with Largest() as seen:  # the measure sees a matrix where there is one
        Gaussian(d, dim, 0)(normal(n, d))
    assert seen.numbers == d * dim


# ---- bad input -----------------------------------------------------------------------------------------------------


@every
def test_bad_input_is_refused(kind: str) -> None:
    for d in (0, 9, -1):
        with pytest.raises(ValueError, match=f"intrinsic_dim: expected 1 to 8, the dimension .*, got {d}"):
            projection(kind, d, 8)
    with pytest.raises(ValueError, match="intrinsic_dim: expected a whole number, got 2.5"):
        projection(kind, 2.5, 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed: expected a whole number, got 'x'"):
        projection(kind, 2, 8, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"z: expected one row of 2 numbers each, \(n, 2\), got \(1, 3\)"):
        projection(kind, 2, 8)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"x: expected one row of 8 numbers each, \(n, 8\), got \(1, 3\)"):
        projection(kind, 2, 8).adjoint(torch.zeros(1, 3))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind: expected one of gaussian, sparse, fastfood, got 'orthogonal'"):
        projection("orthogonal", 2, 8)
    with pytest.raises(ValueError, match="nonzeros: expected a whole number of at least 1, got 0"):
        Sparse(4, 8, 0, nonzeros=0)
    assert Sparse(4, 8, 0, nonzeros=9).nonzeros == 4
