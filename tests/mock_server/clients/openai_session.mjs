// A session of `openai` for Node: `node openai_session.mjs PACKAGES URL KEY` prints what
// it was told. PACKAGES is the folder with node_modules.
import { createRequire } from "node:module";

const [packages, url, apiKey] = process.argv.slice(2);
const { OpenAI, AzureOpenAI } = createRequire(`${packages}/x.js`)("openai");
const options = { apiKey, maxRetries: 0 };
const client = new OpenAI({ ...options, baseURL: `${url}/v1` });
const azure = new AzureOpenAI({ ...options, endpoint: url, apiVersion: "2024-10-21" });
const model = "llama";
const messages = [{ role: "user", content: "hello" }];
const parameters = {
  type: "object",
  properties: { a: { type: "integer" } },
  required: ["a"],
  additionalProperties: false,
};

const whole = await client.chat.completions.create({ model, messages });
const stream = await client.chat.completions.create({
  model, messages, stream: true, stream_options: { include_usage: true },
});
let streamed = "", usage;
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const runner = client.chat.completions.stream({
  model, messages, tool_choice: "required",
  tools: [{ type: "function", function: { name: "f", parameters } }],
});
const [call] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
const text = await client.completions.create({ model, prompt: "hello", max_tokens: 4 });
const vectors = await client.embeddings.create({ model, input: ["a", "b"] });
const kinds = [];
for await (const event of await client.responses.create({
  model, input: "hello", stream: true,
})) kinds.push(event.type);
const response = await client.responses.create({ model, input: "hello" });
const there = await azure.chat.completions.create({ model, messages });
let refused;
try {
  await client.chat.completions.create({ model: "gpt", messages });
} catch (error) {
  refused = [error.constructor.name, error.status, error.code];
}
console.log(JSON.stringify({
  whole: whole.choices[0].message.content,
  streamed,
  usage: usage.completion_tokens,
  arguments: JSON.parse(call.function.arguments),
  text: text.usage.completion_tokens,
  vectors: vectors.data.map((one) => one.embedding.length),
  kinds,
  response: response.output_text,
  azure: there.choices[0].message.content,
  refused,
}));
