//! A worker on apalis: tasks run on the runtime's threads, and their results are kept.
//!
//! apalis-worker URL

use apalis::prelude::*;
use apalis_redis::factory::RedisStorageFactory;
use apalis_redis::{Client, Config};

/// Tasks of one fetch; more of them than by default, which is 10.
const BATCH: usize = 100;

async fn run_script(script: String) -> Result<String, BoxDynError> {
    Ok(rivals::run(&script)?)
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let url = std::env::args()
        .nth(1)
        .ok_or("the server's URL is missing")?;
    // Of its two kinds of storage, the one that is told of new tasks: the other looks for them with each heartbeat.
    let client = Client::open(format!("{url}?protocol=resp3"))?;
    let config = Config::default().queue("bench").batch_size(BATCH);
    let storage = RedisStorageFactory::new(client)
        .await?
        .create_with_config(config)?;
    let worker = WorkerBuilder::new("worker")
        .backend(storage)
        .parallelize(tokio::spawn)
        .build(run_script);
    worker.run().await?;
    Ok(())
}
