"""What is answered, and what is refused, without a server around it."""

import json
from io import BytesIO

import numpy as np
import pytest
from caller import mask_in, png, png_header
from fastapi.testclient import TestClient
from PIL import Image

from sanet.serve.app import create_app
from sanet.serve.config import ServeConfig
from sanet.serve.limits import FORMATS


@pytest.fixture(scope="module")
def client(predictor):
    return TestClient(create_app(predictor, ServeConfig(largest_megapixels=0.5)), "http://localhost")


def test_a_mask_is_what_the_predictor_says(client, images, predictor):
    for content, mask in images[:3]:
        answer = client.post("/predict", content=content)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert int(answer.headers["content-length"]) == len(answer.content)
        np.testing.assert_array_equal(mask_in(answer.content), mask)
        assert answer.content == predictor(Image.open(BytesIO(content))).encoded("mask")


@pytest.mark.parametrize("tolerance", [0, 2])
def test_json_has_shares_regions_and_polygons(client, images, predictor, tolerance):
    content, mask = images[0]
    found = client.post("/predict", params={"format": "json", "tolerance": tolerance}, content=content).json()
    expected = predictor(Image.open(BytesIO(content)), detail="confidence")
    assert (found["height"], found["width"]) == mask.shape
    assert found["shares"] == {
        name: pytest.approx(np.mean(mask == predictor.labels.names.index(name))) for name in expected.classes
    }
    assert found["regions"] == json.loads(json.dumps([region._asdict() for region in expected.regions]))
    assert sum(region["area"] for region in found["regions"]) == np.sum(mask != predictor.labels.background)
    outlines = [(region.label, [ring.tolist() for ring in region.rings]) for region in expected.polygons(tolerance)]
    assert [(each["label"], each["rings"]) for each in found["polygons"]] == outlines


@pytest.mark.parametrize(
    ("accept", "query", "kind"),
    [
        ("*/*", "", "image/png"),
        ("application/json", "", "application/json"),
        ("application/json", "?format=png", "image/png"),
        ("image/png", "?format=json", "application/json"),
    ],
)
def test_accept_or_the_address_says_what_is_answered(client, images, accept, query, kind):
    answer = client.post(f"/predict{query}", content=images[0][0], headers={"Accept": accept})
    assert answer.headers["content-type"] == kind


@pytest.mark.parametrize("kind", FORMATS)
def test_named_formats_are_read(client, kind):
    assert mask_in(client.post("/predict", content=png(40, 50, kind=kind)).content).shape == (40, 50)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"hello", 415),
        (png(40, 50, kind="GIF"), 415),
        (png_header(800, 700), 413),
        (png_header(60_000, 60_000), 413),  # Pillow's own limit
        (png_header(20_001, 10), 413),
        (png_header(40, 50), 422),
        (png(40, 50)[:200], 422),
    ],
)
def test_other_bodies_are_refused_with_a_reason(client, content, status):
    answer = client.post("/predict", content=content)
    assert (answer.status_code, [*answer.json()]) == (status, ["detail"])
    assert client.get("/health").json() == {"status": "ok", "requests": 0}


@pytest.mark.parametrize("query", ["format=jpeg", "tolerance=-1", "tolerance=nan", "tolerance=1e9"])
def test_other_settings_are_refused(client, images, query):
    assert client.post(f"/predict?{query}", content=images[0][0]).status_code == 422


def test_a_token_opens_what_uses_the_model(predictor, images):
    client = TestClient(create_app(predictor, ServeConfig("0.0.0.0", token="s3cret")), "http://anywhere.example")
    for sent in (None, "Bearer wrong", "Bearer ", "Basic s3cret", "Bearer s3cretx", "Bearer \xe4"):
        headers = {} if sent is None else {"Authorization": sent.encode("latin-1")}
        for method, path in (("POST", "/predict"), ("GET", "/labels")):
            answer = client.request(method, path, headers=headers, content=b"x")
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    right = {"Authorization": "Bearer s3cret"}
    assert client.post("/predict", content=images[0][0], headers=right).status_code == 200
    assert client.get("/labels", headers=right).status_code == 200
    assert client.get("/health").status_code == 200


def test_without_a_token_requests_of_other_sites_are_refused(client, images):
    for headers, status in (({"Origin": "https://elsewhere.example"}, 403), ({"Host": "elsewhere.example"}, 403)):
        assert client.post("/predict", content=images[0][0], headers=headers).status_code == status


def test_labels_and_the_page_that_describes_it(client, predictor):
    found = client.get("/labels").json()
    assert found["names"] == [*predictor.labels.names]
    assert [tuple(color) for color in found["colors"]] == [*predictor.labels.colors]
    assert found["ignore_index"] == predictor.labels.ignore_index
    described = client.get("/openapi.json").json()["paths"]
    assert described.keys() == {"/predict", "/labels", "/health"}
    assert {"200", "401", "413", "415", "503", "504"} <= described["/predict"]["post"]["responses"].keys()
    assert "<html" in client.get("/docs").text


def test_no_answer_within_the_time_is_an_error(predictor):
    client = TestClient(create_app(predictor, ServeConfig(seconds=1e-3)), "http://localhost")
    answer = client.post("/predict", content=png(1500, 2000))
    assert answer.status_code == 504
    assert client.get("/health").json()["requests"] == 0
