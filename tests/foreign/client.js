// A customer's system: sends card payments to a Millrace pipeline and waits for the answer to each.
//
//   node client.js --bootstrap HOST:PORT --registry ADDRESS --pipeline NAME [--events 500] [--deadline 60]
//
// Prints one JSON line and ends with 0 when each event was answered once, 1 when not. It knows the
// pipeline's name and nothing else of Millrace: the schemas come from the registry.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";

import { SchemaRegistry } from "@kafkajs/confluent-schema-registry";
import { Kafka, Partitioners, logLevel } from "kafkajs";

const BATCH = 100;
const CUSTOMERS = 40;
const LINGER_MS = 1_500; // a second answer would come within this time

const { values: options } = parseArgs({
  options: {
    bootstrap: { type: "string" },
    registry: { type: "string" },
    pipeline: { type: "string" },
    events: { type: "string", default: "500" },
    deadline: { type: "string", default: "60" },
  },
});
for (const name of ["bootstrap", "registry", "pipeline"]) {
  if (!options[name]) {
    console.error(`--${name} is missing`);
    process.exit(2);
  }
}

const registry = new SchemaRegistry({ host: options.registry });
const kafka = new Kafka({
  clientId: "foreign-client",
  brokers: options.bootstrap.split(","),
  logLevel: logLevel.ERROR,
});
const topics = {
  events: `${options.pipeline}.events.v1`,
  predictions: `${options.pipeline}.predictions.v1`,
};

function payment(number) {
  return {
    transaction_id: `foreign-${randomUUID()}`,
    tx_time: Date.now(),
    customer_id: `customer-${number % CUSTOMERS}`,
    terminal_id: `terminal-${(number * 7) % 100}`,
    tx_amount: Math.round(100 * (1 + 9 * (number % 11))) / 100,
  };
}

async function send(count, open) {
  // Java's partitioner: events of one key go where every other client sends them.
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  const schemaId = await registry.getLatestSchemaId(`${topics.events}-value`);
  await producer.connect();
  for (let begin = 0; begin < count; begin += BATCH) {
    const payments = Array.from({ length: Math.min(BATCH, count - begin) }, (_, at) => payment(begin + at));
    payments.forEach((each) => open.set(each.transaction_id, []));
    const messages = await Promise.all(
      payments.map(async (each) => ({
        key: each.customer_id,
        value: await registry.encode(schemaId, each),
      })),
    );
    await producer.send({ topic: topics.events, messages });
  }
  await producer.disconnect();
}

async function listen(open) {
  const consumer = kafka.consumer({
    groupId: `foreign-client-${randomUUID()}`,
    readUncommitted: false,
    maxWaitTimeInMs: 100,
  });
  await consumer.connect();
  await consumer.subscribe({ topic: topics.predictions, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ message }) => {
      const prediction = await registry.decode(message.value);
      open.get(prediction.event_id)?.push(prediction);
    },
  });
  return consumer;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const answers = new Map();
const events = Number(options.events);
const deadline = Date.now() + 1_000 * Number(options.deadline);
const consumer = await listen(answers);
await send(events, answers);
while (Date.now() < deadline && [...answers.values()].some((each) => each.length === 0)) {
  await pause(50);
}
await pause(LINGER_MS);
await consumer.disconnect();

const given = [...answers.values()];
const labels = {};
for (const { label } of given.flat()) {
  labels[label] = (labels[label] ?? 0) + 1;
}
const answered = given.filter((each) => each.length > 0).length;
const doubled = given.filter((each) => each.length > 1).length;
console.log(JSON.stringify({ sent: given.length, answered, doubled, labels }));
process.exitCode = answered === events && doubled === 0 ? 0 : 1;
