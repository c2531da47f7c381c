// The OpenAI SDK for Node, as it is, against a gateway: node openai_sdk.mjs URL GATEWAY_DID.
//
// Each check is a function; its name is printed when it has passed. Answers are short: the model is slow.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import OpenAI from "openai";

import { covers, verified } from "./receipt.mjs";

const [url, gateway] = process.argv.slice(2);
// No retries: a refusal that the SDK would repeat should show.
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const ask = {
  model,
  messages: [{ role: "user", content: "Name three colours." }],
  max_tokens: 12,
  seed: 7,
  temperature: 0.8,
};

async function proven(id, receipt, texts, finishes) {
  const kept = await (await fetch(`${url}/v1/receipts/${id}`)).json();
  assert.equal(kept.receipt, receipt);
  const claims = await verified(receipt, kept.chain, gateway);
  assert.equal(claims.jti, id);
  assert.equal(claims.sub, undefined);
  covers(claims, texts, finishes);
  return claims;
}

/** Texts, finishes and the receipt of streamed chunks. */
function gathered(chunks, count = 1) {
  const texts = Array(count).fill("");
  const finishes = Array(count).fill(null);
  let receipt;
  for (const chunk of chunks) {
    for (const choice of chunk.choices) {
      texts[choice.index] += (choice.delta ? choice.delta.content : choice.text) ?? "";
      finishes[choice.index] = choice.finish_reason ?? finishes[choice.index];
    }
    receipt = chunk.receipt ?? receipt;
  }
  return [texts, finishes, receipt];
}

async function list(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

async function models() {
  assert.equal((await client.models.retrieve(model)).id, model);
  await assert.rejects(client.models.retrieve("no-such-model"), OpenAI.NotFoundError);
}

async function chat() {
  const answer = await client.chat.completions.create(ask);
  const [choice] = answer.choices;
  assert.ok(choice.message.content);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  const claims = await proven(answer.id, answer.receipt, [choice.message.content], [choice.finish_reason]);
  assert.equal(claims.input.prompt_tokens, answer.usage.prompt_tokens);
  assert.equal(claims.output[0].tokens, answer.usage.completion_tokens);
  assert.equal(answer._request_id, answer.id);
}

async function chatStreamed() {
  const chunks = await list(await client.chat.completions.create({ ...ask, stream: true }));
  const [texts, finishes, receipt] = gathered(chunks);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  await proven(chunks[0].id, receipt, texts, finishes);
  const whole = await client.chat.completions.create(ask);
  assert.equal(whole.choices[0].message.content, texts[0], "the same seed gives the same answer");
}

async function chatStreamHelper() {
  const runner = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
  const chunks = [];
  runner.on("chunk", (chunk) => chunks.push(chunk));
  const answer = await runner.finalChatCompletion();
  const [texts, finishes, receipt] = gathered(chunks);
  assert.equal(answer.choices[0].message.content, texts[0]);
  assert.ok((await runner.totalUsage()).completion_tokens > 0);
  await proven(answer.id, receipt, texts, finishes);
}

async function chatChoices() {
  const chunks = await list(await client.chat.completions.create({ ...ask, n: 2, max_tokens: 8, stream: true }));
  const [texts, finishes, receipt] = gathered(chunks, 2);
  await proven(chunks[0].id, receipt, texts, finishes);
}

async function completion() {
  const prompt = { model, prompt: "One, two, three,", max_tokens: 8, temperature: 0 };
  const answer = await client.completions.create(prompt);
  await proven(answer.id, answer.receipt, [answer.choices[0].text], [answer.choices[0].finish_reason]);
  const chunks = await list(await client.completions.create({ ...prompt, stream: true }));
  const [texts, finishes, receipt] = gathered(chunks);
  assert.equal(texts[0], answer.choices[0].text);
  await proven(chunks[0].id, receipt, texts, finishes);
}

/** What a receipt hashes of an answer that calls: grammar.md, 4.2. */
function said(calls) {
  const form = (call) => `<tool_call>\n{"name": "${call.name}", "arguments": ${call.arguments}}\n</tool_call>`;
  return calls.map((call) => form(call.function)).join("\n");
}

async function toolCalls() {
  const parameters = {
    type: "object",
    properties: { city: { type: "string", maxLength: 12 }, days: { type: "integer", minimum: 1, maximum: 7 } },
    required: ["city", "days"],
    additionalProperties: false,
  };
  const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
  const calling = { ...ask, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 100 };
  const answer = await client.chat.completions.create(calling);
  const [choice] = answer.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  const [call] = choice.message.tool_calls;
  const { city, days } = JSON.parse(call.function.arguments);
  assert.ok(city.length <= 12 && days >= 1 && days <= 7);
  const claims = await proven(answer.id, answer.receipt, [said([call])], ["stop"]);
  assert.equal(claims.domain, "text+calls/1");
  const parts = { parallel_tool_calls: false, tool_choice: "required", tools };
  const hashed = createHash("sha256").update(`countersign/grammar/1\n${JSON.stringify(parts)}`).digest("hex");
  assert.equal(claims.sampling.grammar_sha256, hashed);
  const streamed = await client.chat.completions.stream(calling).finalChatCompletion();
  assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
}

async function jsonBySchema() {
  const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"], additionalProperties: false };
  const response_format = { type: "json_schema", json_schema: { name: "reply", schema } };
  const answer = await client.chat.completions.create({ ...ask, response_format, temperature: 1 });
  const text = answer.choices[0].message.content;
  assert.equal(typeof JSON.parse(text).ok, "boolean");
  await proven(answer.id, answer.receipt, [text], ["stop"]);
}

async function abort() {
  const stream = await client.chat.completions.create({ ...ask, max_tokens: 400, stream: true });
  let id;
  for await (const chunk of stream) {
    id = chunk.id;
    if (chunk.choices[0].delta.content) break; // leaving the loop aborts the request
  }
  assert.ok(id);
  // The gateway still serves.
  await client.chat.completions.create({ ...ask, max_tokens: 2 });
}

async function refusals() {
  await assert.rejects(client.chat.completions.create({ ...ask, model: "no-such-model" }), (error) => {
    return error instanceof OpenAI.NotFoundError && error.param === "model" && error.message.length > 0;
  });
  await assert.rejects(client.chat.completions.create({ ...ask, frobnicate: 1 }), (error) => {
    return error instanceof OpenAI.BadRequestError && error.param === "frobnicate";
  });
}

for (const check of [
  models,
  chat,
  chatStreamed,
  chatStreamHelper,
  chatChoices,
  completion,
  toolCalls,
  jsonBySchema,
  abort,
  refusals,
]) {
  await check();
  console.log("ok", check.name);
}
