#!/usr/bin/env python3
"""OpenAI's Python client against a running gate; started by tests/tests/clients.rs.

Only its ordinary variables OPENAI_BASE_URL and OPENAI_API_KEY point it there. CHECK is a JSON object with what
else there is: keys that may less, and one of a project that judges no texts.
"""

import asyncio
import base64
import json
import os
import sys
import time

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types import ModerationCreateResponse

# As the OpenAI API documents them; not taken from the service.
CATEGORIES = {
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
}
MAPS = ("categories", "category_scores", "category_applied_input_types")

# A machine that is slower than a key's rate meets no limit at first.
TRIES = 5

check = json.loads(os.environ["CHECK"])
with open(check["picture"], "rb") as picture:
    PICTURE = base64.b64encode(picture.read()).decode()


def image(data=PICTURE):
    return picture_at(f"data:image/png;base64,{data}")


def picture_at(url):
    return {"type": "image_url", "image_url": {"url": url}}


def whole(answer, results):
    """Every key in every map, also as the attributes that callers read: a missing one would be None."""
    assert answer.id.startswith("modr-") and answer.model, answer
    assert answer._request_id, "x-request-id"
    assert len(answer.results) == results, answer
    # The client itself does not hold an answer against its types.
    ModerationCreateResponse.model_validate(answer.model_dump(by_alias=True), strict=True)
    for result in answer.results:
        assert isinstance(result.flagged, bool)
        for name in MAPS:
            held = getattr(result, name)
            assert set(held.model_dump(by_alias=True)) == CATEGORIES, (name, held)
            for category in CATEGORIES:
                value = getattr(held, category.replace("/", "_").replace("-", "_"))
                assert value is not None, (name, category)
    return answer


def forms(client):
    one = whole(client.moderations.create(input="You are bad"), 1).results[0]
    # One policy reviews every text, the other none.
    assert one.flagged and one.categories.hate and not one.categories.harassment_threatening
    assert one.category_applied_input_types.hate == ["text"] and one.category_applied_input_types.violence == []
    assert 0.0 <= one.category_scores.hate <= 1.0 and one.category_scores.violence == 0.0

    model = client.moderations.create(model="omni-moderation-latest", input=["a", "b", "c"])
    assert [result.flagged for result in whole(model, 3).results] == [True] * 3
    assert len(model.shieldgate["verdicts"]) == 3

    alone = whole(client.moderations.create(input=[image()]), 1).results[0]
    assert not alone.flagged and alone.category_applied_input_types.sexual == ["image"]
    assert alone.category_applied_input_types.hate == []
    mixed = whole(client.moderations.create(input=[{"type": "text", "text": "You are bad"}, image()]), 1).results[0]
    assert mixed.flagged and mixed.category_applied_input_types.sexual == ["image"]
    assert mixed.category_applied_input_types.hate == ["text"]

    raw = client.moderations.with_raw_response.create(input="raw")
    assert raw.headers["x-request-id"] == raw.parse()._request_id and raw.retries_taken == 0


def refused(call, kind, status, code, param=None, type="invalid_request_error"):
    try:
        call()
    except openai.APIStatusError as error:
        assert isinstance(error, kind), (code, error)
        told = (error.status_code, error.code, error.param, error.type)
        assert told == (status, code, param, type), told
        assert error.request_id and error.request_id == error.response.headers["x-request-id"]
        assert error.message and code not in ("", None)
        return error
    raise AssertionError(f"no {status} {code}")


def errors(client):
    create = client.moderations.create

    def text(code, input):
        refused(lambda: create(input=input), openai.BadRequestError, 400, code, "input")

    text("input_empty", [])
    text("text_empty", "")
    text("input_invalid", [1])
    text("image_url_invalid", [picture_at("ftp://example.org/a.png")])
    text("too_many_images", [image(), image()])

    nobody = OpenAI(api_key="sg_wrong").moderations.create
    refused(lambda: nobody(input="a"), openai.AuthenticationError, 401, "key_invalid", type="authentication_error")
    reader = OpenAI(api_key=check["reader"]).moderations.create
    refused(lambda: reader(input="a"), openai.PermissionDeniedError, 403, "scope_missing", type="permission_error")
    refused(client.models.list, openai.NotFoundError, 404, "no_such_route")

    key = {"Idempotency-Key": f"python-{os.getpid()}"}
    first = create(input="first", extra_headers=key)
    assert create(input="first", extra_headers=key).id == first.id
    conflict = lambda: create(input="second", extra_headers=key)
    refused(conflict, openai.ConflictError, 409, "idempotency_conflict", "Idempotency-Key")

    refused(lambda: create(input="a" * 2001), openai.APIStatusError, 413, "text_too_long")
    words = base64.b64encode(b"no picture").decode()
    refused(lambda: create(input=[image(words)]), openai.APIStatusError, 415, "image_type_unsupported")
    local = [picture_at("http://127.0.0.1/")]
    refused(lambda: create(input=local), openai.UnprocessableEntityError, 422, "image_url_refused", "input")


def waits(client):
    # One in two seconds: the next waits as long as it is told, and is answered.
    limited = OpenAI(api_key=check["limited"])
    limited.moderations.create(input="a")
    for _ in range(TRIES):
        began = time.monotonic()
        raw = limited.moderations.with_raw_response.create(input="b")
        if raw.retries_taken:
            break
    assert raw.retries_taken == 1 and time.monotonic() - began >= 1.0, raw.retries_taken
    impatient = limited.with_options(max_retries=0).moderations
    for _ in range(TRIES):
        try:
            impatient.create(input="c")
        except openai.RateLimitError as error:
            assert (error.code, error.type, error.param) == ("rate_limited", "rate_limit_error", None)
            assert error.response.headers["retry-after"] in ("1", "2") and error.request_id
            break
    else:
        raise AssertionError("no 429")

    # What would take until midnight, or until the operator acts, is not slept through: tests/tests/clients.rs
    # counts that each came once.
    spent = OpenAI(api_key=check["quota"]).moderations.create
    spent(input="a")
    refused(lambda: spent(input="b"), openai.RateLimitError, 429, "quota_exceeded", type="rate_limit_error")
    unjudged = OpenAI(api_key=check["pictures_only"]).moderations.create
    error = refused(
        lambda: unjudged(input="a"), openai.InternalServerError, 503, "nothing_judged", type="server_error"
    )
    assert int(error.response.headers["retry-after"]) > 20


async def asynchronous():
    async with AsyncOpenAI() as client:
        answers = await asyncio.gather(*(client.moderations.create(input=f"text {n}") for n in range(6)))
        for answer in answers:
            assert whole(answer, 1).results[0].flagged
        assert len({answer.id for answer in answers}) == 6
        both = [{"type": "text", "text": "You are bad"}, image()]
        whole(await client.moderations.create(input=both), 1)
        try:
            await client.moderations.create(input=[])
            raise AssertionError("no 400")
        except openai.BadRequestError as error:
            assert (error.code, error.param) == ("input_empty", "input") and error.request_id
        limited = client.with_options(api_key=check["limited"]).moderations.with_raw_response
        for _ in range(TRIES):
            raw = await limited.create(input="limited")
            if raw.retries_taken:
                break
        assert raw.retries_taken == 1


def main():
    client = OpenAI()
    forms(client)
    errors(client)
    waits(client)
    asyncio.run(asynchronous())
    print(f"openai {openai.__version__}, Python {sys.version.split()[0]}: good")


main()
