//! The binary `rented-messaging`: `serve` (the default), `demo`, `migrate`, `import`, `check-config`, `health`.

use std::{collections::HashMap, path::Path, process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use clap::{Parser, Subcommand};
use messaging::{
    clock::Clock,
    config::{Config, ConfigError, environment},
    demo,
    import::{self, Bar},
    logging, probe, reports,
    server::{self, ServeError},
    storage::Store,
    traces,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits(3): the configuration is wrong, starting again will not help.
const EXIT_CONFIG: u8 = 78;

/// Every conversation of a rental marketplace.
///
/// Configured by environment variables and a .env file; `.env.example` lists them all.
#[derive(Debug, Parser)]
#[command(name = "rented-messaging", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Serve with a stand-in main API and a page to try it in a browser; nothing to configure.
    Demo,
    /// Bring the database's schema up to date and end.
    Migrate,
    /// Copy the main API's conversations and messages into this database, ids kept.
    ///
    /// Start it again to go on after an interruption, or to bring what is new since; docs/integrate-laravel.md
    /// has the whole of moving in.
    Import {
        /// The main API's database: postgres://user:password@host/name or mysql://….
        #[arg(long)]
        from: String,
    },
    /// Print the effective configuration, secrets masked, or what is wrong with it.
    CheckConfig,
    /// Ask the service that runs here with this configuration whether it is alive: 0 yes, 1 no.
    Health,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or(Command::Serve);
    let outcome = match command {
        Command::CheckConfig => check_config(),
        Command::Health => return ask_health(),
        command => match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run(command)),
            Err(error) => Err(ServeError::Io(error)),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rented-messaging: {error}");
            match error {
                ServeError::Config(_) => ExitCode::from(EXIT_CONFIG),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Container engines know 0 and 1 alone.
fn ask_health() -> ExitCode {
    let asked = Config::load().map_err(|error| error.to_string()).and_then(|config| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("the question cannot be asked: {error}."))?;
        runtime.block_on(probe::ask_health(&config))
    });
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("rented-messaging: {sentence}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "printing is what it was asked for")]
fn check_config() -> Result<(), ServeError> {
    let config = Config::load()?;
    config.main_api_url()?;
    server::email_templates(&config)?;
    for line in config.describe() {
        println!("{line}");
    }
    for warning in config.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

async fn run(command: Command) -> Result<(), ServeError> {
    match command {
        Command::Demo => serve_demo().await,
        Command::Migrate => {
            let config = Config::load()?;
            logging::start(&config.log);
            let store = Store::open(&server::store_options(&config), Clock::System).await?;
            tracing::info!(database = store.backend(), "the schema is up to date");
            store.close().await;
            Ok(())
        }
        Command::Import { from } => import(&from).await,
        Command::Serve | Command::CheckConfig | Command::Health => {
            let config = Config::load()?;
            config.main_api_url()?;
            Box::pin(serve(config, Router::new())).await
        }
    }
}

#[expect(clippy::print_stdout, reason = "the report is what it was asked for")]
async fn import(from: &str) -> Result<(), ServeError> {
    let config = Config::load()?;
    logging::start(&config.log);
    let mut bar = Bar::default();
    let outcome = import::run(from, &server::store_options(&config), Clock::System, |phase, done, total| {
        bar.show(phase, done, total);
    })
    .await;
    bar.end();
    let report = outcome.map_err(failed)?;
    if report.is_resumed {
        println!("went on where the last run stopped");
    }
    println!("new messages                   {}", report.new);
    println!("changed messages               {}", report.changed);
    println!("{}", report.comparison);
    if report.comparison.agrees() {
        println!("Both sides agree.");
        Ok(())
    } else {
        Err(failed("both sides DIFFER: if the main API was writing meanwhile, import again"))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ServeError {
    ServeError::Import(error.into())
}
/// How often lines that were held back as repeated are told of.
const HELD_BACK_TOLD_EVERY: Duration = Duration::from_secs(5);
/// What is left to tell goes out in this time when the service is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

async fn serve(config: Config, page: Router) -> Result<(), ServeError> {
    logging::start(&config.log);
    reports::watch_panics();
    reports::start(&config)?;
    traces::start(&config)?;
    let telling = tokio::spawn(async {
        loop {
            tokio::time::sleep(HELD_BACK_TOLD_EVERY).await;
            logging::tell_held_back();
        }
    });
    let outcome = serve_until_told(config, page).await;
    telling.abort();
    tokio::join!(reports::flush(LAST_WORDS), traces::flush(LAST_WORDS));
    outcome
}

async fn serve_until_told(config: Config, page: Router) -> Result<(), ServeError> {
    let listener = server::listen(&config).await?;
    let patience = config.server.shutdown_timeout;
    let stopping = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stopping);
    // The whole service is one large future.
    let serving = Box::pin(server::run(config, listener, page, Clock::System, async move {
        server::stop_signal().await;
        stopped.notify_one();
    }));
    tokio::select! {
        outcome = serving => outcome,
        () = async { stopping.notified().await; tokio::time::sleep(patience).await; } => {
            tracing::warn!("SHUTDOWN_TIMEOUT is over; what is left is cut off");
            Ok(())
        }
    }
}

/// What an operator set still counts, but for what makes it a demo.
async fn serve_demo() -> Result<(), ServeError> {
    let main_api = demo::start_main_api().await.map_err(ServeError::Io)?;
    let mut variables: HashMap<String, String> = environment(Path::new(".env"))?;
    if variables.get("NODE_ENV").or(variables.get("APP_ENV")).is_some_and(|value| value == "production") {
        return Err(ConfigError::new("NODE_ENV", "is production, where the demo must not run.").into());
    }
    variables.insert("MAIN_API_URL".into(), main_api.base_url().into());
    let push_service = demo::start_push_service().await.map_err(ServeError::Io)?;
    for (name, value) in push_service.variables() {
        variables.insert(name.into(), value.into());
    }
    let config = Config::from_env(variables)?;
    let port = config.server.port;
    let page = demo::router(main_api.page_config()).merge(push_service.router());
    eprintln!("\n  Rented Messaging, demo: open http://localhost:{port}/ in a browser.\n");
    Box::pin(serve(config, page)).await
}
