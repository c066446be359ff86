// A worker of BullMQ: node worker.mjs URL

import IORedis from "ioredis";
import { Worker } from "bullmq";

const addon = { exports: {} };
process.dlopen(addon, new URL("../target/release/librhai_node.so", import.meta.url).pathname);

new Worker("bench", async (job) => addon.exports.run(job.data.script), {
  connection: new IORedis(process.argv[2], { maxRetriesPerRequest: null }), // as Worker demands
  concurrency: 50,
});
