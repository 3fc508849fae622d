// OpenAI's Node client against a running gate; started by tests/tests/clients.rs.
//
// Only its ordinary variables OPENAI_BASE_URL and OPENAI_API_KEY point it there. CHECK is a JSON object with what
// else there is: keys that may less, and one of a project that judges no texts.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { VERSION } from "openai/version";

// As the OpenAI API documents them; not taken from the service.
const CATEGORIES = [
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
];

// A machine that is slower than a key's rate meets no limit at first.
const TRIES = 5;

const check = JSON.parse(process.env.CHECK);
const picture = readFileSync(check.picture).toString("base64");
const pictureAt = (url) => ({ type: "image_url", image_url: { url } });
const image = (data = picture) => pictureAt(`data:image/png;base64,${data}`);
const bad = { type: "text", text: "You are bad" };

function whole(answer, results) {
  assert.match(answer.id, /^modr-/);
  assert.equal(typeof answer.model, "string");
  assert.ok(answer._request_id, "x-request-id");
  assert.equal(answer.results.length, results);
  for (const result of answer.results) {
    assert.equal(typeof result.flagged, "boolean");
    for (const [name, isRight] of Object.entries({
      categories: (value) => typeof value === "boolean",
      category_scores: (value) => typeof value === "number" && value >= 0 && value <= 1,
      category_applied_input_types: (value) => Array.isArray(value),
    })) {
      assert.deepEqual(Object.keys(result[name]).sort(), CATEGORIES, name);
      for (const [category, value] of Object.entries(result[name])) assert.ok(isRight(value), `${name} ${category}`);
    }
  }
  return answer;
}

async function forms(client) {
  const [one] = whole(await client.moderations.create({ input: "You are bad" }), 1).results;
  // One policy reviews every text, the other none.
  assert.deepEqual([one.flagged, one.categories.hate, one.categories["harassment/threatening"]], [true, true, false]);
  assert.deepEqual(one.category_applied_input_types.hate, ["text"]);
  assert.deepEqual(one.category_applied_input_types.violence, []);

  const request = { model: "omni-moderation-latest", input: ["a", "b", "c"] };
  const several = whole(await client.moderations.create(request), 3);
  assert.deepEqual(several.results.map((result) => result.flagged), [true, true, true]);
  assert.equal(several.shieldgate.verdicts.length, 3);

  const [alone] = whole(await client.moderations.create({ input: [image()] }), 1).results;
  assert.equal(alone.flagged, false);
  assert.deepEqual(alone.category_applied_input_types.sexual, ["image"]);
  const [mixed] = whole(await client.moderations.create({ input: [bad, image()] }), 1).results;
  assert.equal(mixed.flagged, true);
  assert.deepEqual(mixed.category_applied_input_types.sexual, ["image"]);
  assert.deepEqual(mixed.category_applied_input_types.hate, ["text"]);

  const { data, response } = await client.moderations.create({ input: "raw" }).withResponse();
  assert.equal(response.headers.get("x-request-id"), data._request_id);
  const together = await Promise.all([1, 2, 3, 4].map((n) => client.moderations.create({ input: `text ${n}` })));
  assert.equal(new Set(together.map((answer) => whole(answer, 1).id)).size, 4);
}

async function refused(call, kind, status, code, param = null, type = "invalid_request_error") {
  const error = await call.then(
    () => assert.fail(`no ${status} ${code}`),
    (error) => error,
  );
  assert.ok(error instanceof kind && error instanceof OpenAI.APIError, `${code}: ${error}`);
  assert.deepEqual([error.status, error.code, error.param, error.type], [status, code, param, type]);
  assert.ok(error.requestID && error.requestID === error.headers.get("x-request-id"), code);
  assert.ok(error.message);
  return error;
}

async function errors(client) {
  const create = (input, options) => client.moderations.create({ input }, options);
  for (const [code, input] of [
    ["input_empty", []],
    ["text_empty", ""],
    ["input_invalid", [1]],
    ["image_url_invalid", [pictureAt("ftp://example.org/a.png")]],
    ["too_many_images", [image(), image()]],
  ]) {
    await refused(create(input), OpenAI.BadRequestError, 400, code, "input");
  }
  const as = (apiKey) => new OpenAI({ apiKey }).moderations.create({ input: "a" });
  await refused(as("sg_wrong"), OpenAI.AuthenticationError, 401, "key_invalid", null, "authentication_error");
  await refused(as(check.reader), OpenAI.PermissionDeniedError, 403, "scope_missing", null, "permission_error");
  await refused(client.models.list(), OpenAI.NotFoundError, 404, "no_such_route");

  const keyed = { headers: { "Idempotency-Key": `node-${process.pid}` } };
  const first = await create("first", keyed);
  assert.equal((await create("first", keyed)).id, first.id);
  await refused(create("second", keyed), OpenAI.ConflictError, 409, "idempotency_conflict", "Idempotency-Key");

  await refused(create("a".repeat(2001)), OpenAI.APIError, 413, "text_too_long");
  const words = Buffer.from("no picture").toString("base64");
  await refused(create([image(words)]), OpenAI.APIError, 415, "image_type_unsupported");
  const local = create([pictureAt("http://127.0.0.1/")]);
  await refused(local, OpenAI.UnprocessableEntityError, 422, "image_url_refused", "input");
}

async function waits() {
  // One in two seconds: the next waits as long as it is told, and is answered.
  const limited = new OpenAI({ apiKey: check.limited });
  await limited.moderations.create({ input: "a" });
  let took = 0;
  for (let tries = 0; tries < TRIES && took < 1000; tries++) {
    const began = performance.now();
    await limited.moderations.create({ input: "b" });
    took = performance.now() - began;
  }
  assert.ok(took >= 1000, "never waited");
  let error;
  for (let tries = 0; tries < TRIES && !error; tries++) {
    error = await limited.moderations.create({ input: "c" }, { maxRetries: 0 }).then(() => null, (error) => error);
  }
  assert.ok(error instanceof OpenAI.RateLimitError, `no 429: ${error}`);
  assert.deepEqual([error.code, error.type, error.param], ["rate_limited", "rate_limit_error", null]);
  assert.match(error.headers.get("retry-after"), /^[12]$/);

  // What would take until midnight, or until the operator acts, is not slept through: tests/tests/clients.rs
  // counts that each came once.
  const quota = new OpenAI({ apiKey: check.quota });
  await quota.moderations.create({ input: "a" });
  const spent = quota.moderations.create({ input: "b" });
  await refused(spent, OpenAI.RateLimitError, 429, "quota_exceeded", null, "rate_limit_error");
  const unjudged = new OpenAI({ apiKey: check.pictures_only }).moderations.create({ input: "a" });
  const away = await refused(unjudged, OpenAI.InternalServerError, 503, "nothing_judged", null, "server_error");
  assert.ok(Number(away.headers.get("retry-after")) > 20);
}

const client = new OpenAI();
await forms(client);
await errors(client);
await waits();
console.log(`openai ${VERSION}, Node ${process.version}: good`);
