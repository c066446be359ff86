//! The original worker, written from its protocol alone, to measure against: one task at a time, a round
//! trip for each of its four steps. The host function `wait` blocks the worker, as one that does I/O does.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use clap::Parser;
use redis::{AsyncCommands, AsyncConnectionConfig};
use rhai::{Dynamic, Engine, Scope};

/// Of one wait for a task. The client's own limit for a response, half a second by default, is set above
/// it: else the worker would have to ask more often when idle than its protocol does.
const BLPOP_SECONDS: u64 = 5;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    redis_url: String,
    #[arg(long)]
    circle_public_key: String,
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[tokio::main]
async fn main() -> redis::RedisResult<()> {
    let args = Args::parse();
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(Duration::from_secs(2 * BLPOP_SECONDS)));
    let mut connection = redis::Client::open(args.redis_url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let mut engine = Engine::new();
    engine.register_fn("wait", |milliseconds: i64| {
        std::thread::sleep(Duration::from_millis(milliseconds.unsigned_abs()));
    });
    let queue = format!("rhai_tasks:{}", args.circle_public_key);
    loop {
        let popped: Option<(String, String)> =
            connection.blpop(&queue, BLPOP_SECONDS as f64).await?;
        let Some((_, id)) = popped else { continue };
        let key = format!("rhai_task_details:{id}");
        let details: HashMap<String, String> = connection.hgetall(&key).await?;
        let _: () = connection
            .hset_multiple(&key, &[("status", "processing"), ("updatedAt", &now())])
            .await?;
        let mut scope = Scope::new();
        scope.push_constant("CONTEXT_ID", args.circle_public_key.clone());
        scope.push_constant(
            "CALLER_ID",
            details.get("callerId").cloned().unwrap_or_default(),
        );
        let script = details.get("script").map_or("", String::as_str);
        let (status, field, text) = match engine.eval_with_scope::<Dynamic>(&mut scope, script) {
            Ok(value) if value.is_string() => (
                "completed",
                "output",
                value.into_string().unwrap_or_default(),
            ),
            Ok(value) => ("completed", "output", value.to_string()),
            Err(error) => ("error", "error", error.to_string()),
        };
        let _: () = connection
            .hset_multiple(
                &key,
                &[("status", status), (field, &text), ("updatedAt", &now())],
            )
            .await?;
    }
}
