"""Equations (6) to (9) against loops over pictures n, pixels i and classes j."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gloo import run_in_processes
from sanet import distributed
from sanet.config import LossConfig
from sanet.structures import Batch, LabelSet, SegmentationOutput, UsageError
from sanet.training.losses import SegmentationLoss, class_weights, count_pixels

IGNORE = 255


def names(classes):
    return tuple(f"class {index}" for index in range(classes))


def compare(output, target, weights=None, ignore_index=IGNORE, **terms):
    """The loss of some terms, those of the paper where none are named, as a dict."""
    settings = LossConfig(terms) if terms else LossConfig()
    labels = LabelSet(names(output.mask.shape[1]), ignore_index=ignore_index)
    return SegmentationLoss(settings, labels, weights)(output, Batch(output.logits, target, ()))


def paper(alpha=0.2, beta=0.8, kind="presence"):
    return {"mask": 1.0, "category": {"weight": alpha, "options": {"target": kind}}, "dense": beta}


def batch(pictures=3, classes=4, size=(7, 9), feature_size=(3, 5), seed=0):
    """An output of random logits, and masks of which about a third is ignored."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return (3 * torch.randn(*shape, generator=generator)).requires_grad_()

    output = SegmentationOutput(
        logits=random(pictures, classes, *size),
        mask=random(pictures, classes, *feature_size),
        dense=random(pictures, classes, 2, 3),
        category=random(pictures, classes),
    )
    target = torch.randint(0, classes, (pictures, *size), generator=generator)
    target[torch.rand(pictures, *size, generator=generator) < 0.3] = IGNORE
    return output, target


def pixel_loops(logits, target, weights=None):
    """(7) and (9): - 1/M sum_n sum_i sum_j w_j Y_nij log softmax(logits)_nij, M the weight of labelled pixels."""
    logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    pictures, classes, height, width = logits.shape
    values, truth = logits.tolist(), target.tolist()
    total = weight = 0.0
    for n in range(pictures):
        for y in range(height):
            for x in range(width):
                if truth[n][y][x] == IGNORE:
                    continue
                normaliser = sum(math.exp(values[n][k][y][x]) for k in range(classes))
                for j in range(classes):
                    if truth[n][y][x] == j:
                        factor = 1.0 if weights is None else weights[j]
                        total -= factor * math.log(math.exp(values[n][j][y][x]) / normaliser)
                        weight += factor
    return total / weight if weight else 0.0


def category_loops(logits, target, kind):
    """(8): - 1/N sum_n sum_j y_nj log s_nj + (1 - y_nj) log (1 - s_nj), N the pictures with labels."""
    total, counted = 0.0, 0
    for values, mask in zip(logits.tolist(), target.tolist(), strict=True):
        pixels = [value for row in mask for value in row if value != IGNORE]
        if not pixels:
            continue
        counted += 1
        for j, value in enumerate(values):
            share = pixels.count(j) / len(pixels)
            y = share if kind == "share" else float(share > 0)
            s = 1 / (1 + math.exp(-value))
            total -= y * math.log(s) + (1 - y) * math.log(1 - s)
    return total / counted if counted else 0.0


def check(output, target, kind="presence", weights=None, alpha=0.2, beta=0.8):
    tensor = None if weights is None else torch.tensor(weights)
    terms = compare(output, target, tensor, **paper(alpha, beta, kind))
    mask, dense = pixel_loops(output.mask, target, weights), pixel_loops(output.dense, target, weights)
    category = category_loops(output.category, target, kind)
    assert terms["mask"].item() == pytest.approx(mask, rel=1e-5)
    assert terms["dense"].item() == pytest.approx(dense, rel=1e-5)
    assert terms["category"].item() == pytest.approx(category, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(mask + alpha * category + beta * dense, rel=1e-5)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 0.1], [0.0, 1.0, 3.0, 0.0]], ids=str)
@pytest.mark.parametrize("kind", ["presence", "share"])
def test_terms_follow_the_equations(kind, weights):
    check(*batch(), kind, weights)


@settings(max_examples=25)
@given(
    pictures=st.integers(1, 3),
    classes=st.integers(1, 5),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kind=st.sampled_from(["presence", "share"]),
    alpha=st.floats(0, 2),
    beta=st.floats(0, 2),
    seed=st.integers(0, 1000),
)
def test_terms_follow_the_equations_for_any_size(pictures, classes, size, kind, alpha, beta, seed):
    output, target = batch(pictures, classes, size, seed=seed)
    check(output, target, kind, alpha=alpha, beta=beta)


def test_defaults_are_those_of_the_paper():
    output, target = batch()
    terms = compare(output, target)
    assert terms["loss"].item() == pytest.approx(
        (terms["mask"] + 0.2 * terms["category"] + 0.8 * terms["dense"]).item()
    )


def test_presence_and_share_differ():
    output, target = batch()
    sure = output._replace(category=torch.full((3, 4), 4.0))  # every class is in each of the pictures
    presence, share = (compare(sure, target, **paper(kind=kind)) for kind in ("presence", "share"))
    assert presence["category"] < 0.1 < 1 < share["category"]
    assert torch.equal(presence["mask"], share["mask"])


def test_class_weights_of_one_change_nothing():
    output, target = batch()
    plain = compare(output, target)
    weighted = compare(output, target, torch.full((4,), 3.0))
    assert weighted["loss"].item() == pytest.approx(plain["loss"].item(), rel=1e-6)


@pytest.mark.parametrize(
    ("balance", "weight"),
    [
        ("fourth_root", lambda share: share**-0.25),
        ("sqrt", lambda share: share**-0.5),
        ("log", lambda share: 1 / math.log(1.02 + share)),
    ],
)
def test_weights_of_classes_are_those_of_the_formula_with_a_mean_of_one_over_the_pixels(balance, weight):
    pixels = [700, 250, 0, 50]
    found = class_weights(torch.tensor(pixels), balance)
    expected = [weight(count / 1000) if count else 0.0 for count in pixels]
    mean = sum(factor * count for factor, count in zip(expected, pixels, strict=True)) / 1000
    assert found.tolist() == pytest.approx([factor / mean for factor in expected], rel=1e-6)
    assert class_weights(torch.tensor(pixels), "none") is None


def test_a_mixed_batch_with_a_picture_that_is_all_ignored():
    output, target = batch()
    target[1] = IGNORE
    check(output, target, "presence")
    check(output, target, "share")
    others = SegmentationOutput(*(part[[0, 2]] for part in output[:4]))
    whole = compare(output, target)
    without = compare(others, target[[0, 2]])
    for one, other in zip(whole.values(), without.values(), strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-6)
    whole["loss"].backward()
    for part in (output.mask, output.dense, output.category):
        assert not part.grad[1].any()
        assert part.grad[0].any()


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.1])], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", ["presence", "share"])
def test_a_batch_of_ignored_pixels_only_counts_exactly_zero(kind, weights):
    output, target = batch()
    terms = compare(output, torch.full_like(target, IGNORE), weights, **paper(kind=kind))
    assert [term.item() for term in terms.values()] == [0, 0, 0, 0]
    terms["loss"].backward()
    for part in (output.mask, output.dense, output.category):
        assert part.grad.isfinite().all()
        assert not part.grad.any()


def test_classes_of_weight_zero_only_count_zero():
    output, target = batch()
    target[target != IGNORE] = 2
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0])
    terms = compare(output, target, weights)
    assert terms["mask"] == terms["dense"] == 0
    terms["loss"].backward()
    assert output.mask.grad.isfinite().all()


def test_logits_under_ignored_pixels_change_nothing():
    """At the masks' own size, where no resize carries a logit to its neighbours."""
    output, target = batch(feature_size=(7, 9))
    output = output._replace(dense=(0.5 * output.mask).detach().requires_grad_())
    ignored = (target == IGNORE)[:, None].expand_as(output.mask)
    noise = 50 * torch.randn(output.mask.shape, generator=torch.Generator().manual_seed(5)) * ignored
    parts = {name: (getattr(output, name) + noise).detach().requires_grad_() for name in ("mask", "dense")}
    changed = output._replace(**parts, category=output.category.detach().clone().requires_grad_())
    before, after = compare(output, target), compare(changed, target)
    assert [term.item() for term in before.values()] == [term.item() for term in after.values()]
    before["loss"].backward()
    after["loss"].backward()
    for name in ("mask", "dense", "category"):
        assert torch.equal(getattr(output, name).grad, getattr(changed, name).grad), name
    assert not output.mask.grad[ignored].any()
    assert output.mask.grad[~ignored].all()


@pytest.mark.parametrize("ignore_index", [-1, 255, 4])
def test_any_ignore_index(ignore_index):
    output, target = batch()
    moved = target.masked_fill(target == IGNORE, ignore_index)
    one, other = compare(output, target), compare(output, moved, ignore_index=ignore_index)
    assert [term.item() for term in one.values()] == [term.item() for term in other.values()]


def test_a_term_without_output_counts_zero():
    output, target = batch()
    full = compare(output, target)
    only_mask = compare(output._replace(dense=None, category=None), target)
    assert only_mask["category"] == only_mask["dense"] == 0
    assert only_mask["loss"] == only_mask["mask"] == full["mask"]
    no_category = compare(output._replace(category=None), target)
    assert no_category["loss"].item() == pytest.approx((full["mask"] + 0.8 * full["dense"]).item())


def test_logits_are_not_supervised():
    output, target = batch()
    terms = compare(output._replace(logits=None), target)
    assert terms["loss"] == compare(output, target)["loss"]


def test_gradients_are_those_of_the_equations():
    """d (7) / d logit_nij = (softmax_nij - Y_nij) / M, where no resize lies between."""
    output, target = batch(feature_size=(7, 9))
    compare(output, target)["mask"].backward()
    shares = output.mask.detach().softmax(1)
    labelled = target != IGNORE
    truth = F.one_hot(target.masked_fill(~labelled, 0), 4).permute(0, 3, 1, 2)
    expected = (shares - truth) * labelled[:, None] / labelled.sum()
    torch.testing.assert_close(output.mask.grad, expected, rtol=1e-5, atol=1e-7)


def test_half_precision_outputs_are_summed_in_single_precision():
    output, target = batch()
    halves = SegmentationOutput(*(part.detach().bfloat16() for part in output[:4]))
    singles = SegmentationOutput(*(part.float() for part in halves[:4]))
    one, other = compare(halves, target), compare(singles, target)
    assert one["loss"].dtype == torch.float32
    assert [term.item() for term in one.values()] == [term.item() for term in other.values()]


def test_pixels_are_counted_by_picture():
    _, target = batch()
    counts = count_pixels(target, LabelSet(names(4)))
    assert counts.tolist() == [[int((mask == k).sum()) for k in range(4)] for mask in target]


# -- other terms ------------------------------------------------------------------------------------------------------


def labelled_pixels(output, target):
    """Probabilities (K,) and class of every labelled pixel, at the masks' size."""
    logits = F.interpolate(output.mask, size=target.shape[-2:], mode="bilinear", align_corners=False).double()
    shares = logits.softmax(1).movedim(1, -1)
    return [
        (shares[place].tolist(), value)
        for place, value in ((tuple(place), target[tuple(place)].item()) for place in (target != IGNORE).nonzero())
    ]


def term(name, output, target, weights=None, **options):
    return compare(output, target, weights, **{name: {"options": options}})[name].item()


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.1])], ids=["plain", "weighted"])
def test_focal_and_ohem_follow_their_formulas(weights):
    output, target = batch()
    pixels = labelled_pixels(output, target)
    factors = [1.0 if weights is None else weights[value].item() for _, value in pixels]
    losses = [-math.log(shares[value]) for shares, value in pixels]
    focal = [(1 - math.exp(-loss)) ** 1.5 * loss for loss in losses]
    expected = sum(map(math.prod, zip(factors, focal, strict=True))) / sum(factors)
    assert term("focal", output, target, weights, gamma=1.5) == pytest.approx(expected, rel=1e-5)
    assert term("focal", output, target, weights, gamma=0) == pytest.approx(
        term("mask", output, target, weights), rel=1e-5
    )
    for threshold, keep in ((0.4, 0.0), (1e-9, 0.25), (1.0, 0.0)):
        order = sorted(range(len(losses)), key=lambda index: -losses[index])
        hard = [index for index in order if math.exp(-losses[index]) < threshold]
        hard = max(hard, order[: round(keep * len(order))], key=len)
        expected = sum(factors[index] * losses[index] for index in hard) / sum(factors[index] for index in hard)
        found = term("ohem", output, target, weights, threshold=threshold, keep=keep)
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_and_lovasz_follow_their_formulas(smooth):
    output, target = batch()
    target[target == 2] = 0  # a class that the batch does not have
    pixels = labelled_pixels(output, target)
    dice, lovasz = [], []
    for k in (0, 1, 3):
        shared = sum(shares[k] for shares, value in pixels if value == k)
        total = sum(shares[k] + (value == k) for shares, value in pixels)
        dice.append(1 - (2 * shared + smooth) / (total + smooth))
        errors = sorted(((abs((value == k) - shares[k]), value == k) for shares, value in pixels), reverse=True)
        count, before, loss = sum(true for _, true in errors), 0.0, 0.0
        for n in range(len(errors)):  # the Jaccard loss of the n + 1 largest errors
            wrong = errors[: n + 1]
            missed = sum(true for _, true in wrong)
            jaccard = 1 - (count - missed) / (count + len(wrong) - missed)
            loss, before = loss + errors[n][0] * (jaccard - before), jaccard
        lovasz.append(loss)
    assert term("dice", output, target, smooth=smooth) == pytest.approx(sum(dice) / 3, rel=1e-5)
    assert term("lovasz", output, target) == pytest.approx(sum(lovasz) / 3, rel=1e-5)


def test_terms_are_those_of_another_library_where_they_mean_the_same():
    theirs = pytest.importorskip("segmentation_models_pytorch").losses
    output, target = batch(feature_size=(7, 9))
    options = {"mode": "multiclass", "ignore_index": IGNORE}
    expected = {
        "dice": theirs.DiceLoss(**options),
        "lovasz": theirs.LovaszLoss(**options),
    }
    for name, loss in expected.items():
        assert term(name, output, target) == pytest.approx(loss(output.mask, target).item(), rel=1e-4), name
    smoothed = F.cross_entropy(output.mask, target, ignore_index=IGNORE, label_smoothing=0.1)
    assert term("mask", output, target, label_smoothing=0.1) == pytest.approx(smoothed.item(), rel=1e-5)


@pytest.mark.parametrize(("window", "gamma"), [(3, 2.0), (7, 0.0)])
def test_the_border_is_where_two_classes_are_near(window, gamma):
    """Against loops, also beside ignored pixels; the focal loss of each stage, added up."""
    output, target = batch(feature_size=(7, 9))
    logits, radius = 3 * torch.randn(3, 2, 7, 9), window // 2
    target[1, :, :4] = 2  # an inside without borders
    losses = []
    for n, row, column in itertools.product(range(3), range(7), range(9)):
        if target[n, row, column] != IGNORE:
            rows, columns = (slice(max(0, at - radius), at + radius + 1) for at in (row, column))
            near = set(target[n, rows, columns].flatten().tolist()) - {IGNORE}
            for logit in logits[n, :, row, column].tolist():
                right = 1 / (1 + math.exp(-logit if len(near) > 1 else logit))
                losses.append(-((1 - right) ** gamma) * math.log(right))
    found = term("border", output._replace(border=logits), target, window=window, gamma=gamma)
    assert found == pytest.approx(2 * sum(losses) / len(losses), rel=1e-4)  # of two stages
    assert term("border", output, target) == 0
    nothing = compare(output._replace(border=logits), torch.full_like(target, IGNORE), border=1.0)
    assert nothing["loss"] == 0


def test_several_deeply_supervised_stages_are_added():
    output, target = batch()
    other = batch(seed=1)[0].dense
    both = output._replace(dense=torch.cat([output.dense, other], dim=1))
    one, two = (term("dense", output._replace(dense=dense), target) for dense in (output.dense, other))
    assert term("dense", both, target) == pytest.approx(one + two)


@pytest.mark.parametrize("name", ["ohem", "dice", "lovasz", "focal"])
def test_a_term_over_ignored_pixels_only_is_zero_and_logits_under_them_change_nothing(name):
    output, target = batch(feature_size=(7, 9))
    nothing = compare(output, torch.full_like(target, IGNORE), **{name: 1.0})["loss"]
    assert nothing == 0
    nothing.backward()
    assert output.mask.grad is None or not output.mask.grad.any()
    noise = 50 * torch.randn(output.mask.shape) * (target == IGNORE)[:, None]
    assert term(name, output._replace(mask=output.mask + noise), target) == term(name, output, target)
    half = compare(SegmentationOutput(*(part.bfloat16() for part in output[:4])), target, **{name: 1.0})["loss"]
    assert half.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask", "category", "dense", "border", "dice", "focal"])
def test_processes_share_the_gradient_of_one(name):
    """Each has its own images, with more or fewer labelled pixels; the mean of their gradients is that of all."""

    def gradients(images):
        output, target = batch(pictures=5)
        target[0, 2:] = IGNORE
        parts = {
            part: getattr(output, part).detach()[images].requires_grad_() for part in ("mask", "dense", "category")
        }
        parts["border"] = output.mask[:, :2].detach()[images].requires_grad_()
        compare(SegmentationOutput(logits=None, **parts), target[images], **{name: 1.0})["loss"].backward()
        return {part: value.grad for part, value in parts.items() if value.grad is not None}

    def share():
        return gradients(slice(0, 2) if distributed.rank() == 0 else slice(2, 5))

    whole, shares = gradients(slice(None)), run_in_processes(2, share)
    for part, expected in whole.items():
        found = torch.cat([one[part] for one in shares]) / 2  # processes average what they find
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_a_term_from_python_and_one_that_returns_no_scalar():
    output, target = batch()
    seen = []

    def own(output, batch, context):
        seen.append(context)
        return output.mask.mean()

    labels = LabelSet(names(4), ignore_index=IGNORE)
    loss = SegmentationLoss(LossConfig({"mask": 1.0, own: 0.5}), labels)
    terms = loss(output, Batch(output.logits, target, ()), step=7)
    assert [*terms] == ["loss", "mask", loss.names[1]]
    assert loss.names[1].endswith("own")
    assert terms["loss"].item() == pytest.approx((terms["mask"] + 0.5 * output.mask.mean()).item())
    assert (seen[0].labels, seen[0].step) == (labels, 7)
    with pytest.raises(UsageError, match="lambda"):
        SegmentationLoss(LossConfig({lambda output, *_: output.mask: 1.0}), labels)(
            output, Batch(output.logits, target, ())
        )
