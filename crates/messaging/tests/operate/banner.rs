//! The first lines of the log.

use crate::{process::Program, stand_ins::MainApi};

const PRODUCTION: [(&str, &str); 2] =
    [("NODE_ENV", "production"), ("CORS_ORIGIN", "https://app.example.test")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_says_what_runs_on_what_and_with_which_parts() {
    let main_api = MainApi::start().await;
    let mut program = Program::start(&main_api, &[PRODUCTION[0], PRODUCTION[1], ("METRICS_PORT", "0")]).await;
    let serves = program.wait_for_line("rented-messaging serves").await;
    assert_eq!(serves["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(serves["environment"], "production");
    assert_eq!(serves["address"], format!("127.0.0.1:{}", program.port));
    assert_eq!(serves["database"], "sqlite");
    assert_eq!(serves["redis"], "none, one node");
    let parts = program.wait_for_line("parts of the service").await;
    let list = |name: &str| parts[name].as_str().unwrap().split(',').map(str::to_owned).collect::<Vec<_>>();
    for on in ["rate_limits", "metrics"] {
        assert!(list("on").contains(&on.to_owned()), "{parts}");
    }
    for off in ["tls", "redis", "jwt_check", "traces", "error_reports"] {
        assert!(list("off").contains(&off.to_owned()), "{parts}");
    }
    assert_eq!(program.end().await, Some(0));
    program.wait_for_line("gone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_warns_of_plain_http_in_production() {
    let main_api = MainApi::start().await;
    let program = Program::start(&main_api, &PRODUCTION).await;
    let warnings: Vec<String> = warnings(&program);
    assert!(warnings.iter().any(|warning| warning.contains("plain HTTP")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("/metrics is closed")), "{warnings:?}");
    let behind = [PRODUCTION[0], PRODUCTION[1], ("TRUSTED_PROXIES", "127.0.0.1"), ("METRICS_TOKEN", "k4Zq9")];
    let quiet = Program::start(&main_api, &behind).await;
    assert_eq!(self::warnings(&quiet), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_warns_of_open_origins_and_missing_limits() {
    let main_api = MainApi::start().await;
    let variables = [("CORS_ORIGIN", "*"), ("RATE_LIMIT_MESSAGES", "0"), ("TRUSTED_PROXIES", "0.0.0.0/0")];
    let warnings = warnings(&Program::start(&main_api, &variables).await);
    for name in ["CORS_ORIGIN", "RATE_LIMIT_MESSAGES", "TRUSTED_PROXIES"] {
        assert!(warnings.iter().any(|warning| warning.starts_with(name)), "{name}: {warnings:?}");
    }
}

fn warnings(program: &Program) -> Vec<String> {
    let log = program.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .filter(|line| line["level"] == "WARN")
        .map(|line| line["message"].as_str().unwrap().to_owned())
        .collect()
}
