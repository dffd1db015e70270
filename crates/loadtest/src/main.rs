//! The binary `loadtest`: reads the command line, runs one mode, tells by its exit code how it went.

use std::process::ExitCode;

use clap::Parser as _;

use loadtest::{
    cli::{Cli, Command, Common},
    modes,
    report::Report,
};

/// Something was lost, repeated or otherwise wrong.
const WRONG: u8 = 1;
/// It could not be run.
const IMPOSSIBLE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        Err(reason) => {
            use std::io::Write as _;
            // With standard error gone, the exit code is all that is left to say.
            let _ = writeln!(std::io::stderr().lock(), "loadtest: {reason}");
            ExitCode::from(IMPOSSIBLE)
        }
    }
}

/// Answers whether all went well.
fn run(command: &Command) -> Result<bool, String> {
    match command {
        Command::Connect(options) => report(&options.common, modes::connect::run(options)),
        Command::Send(options) => report(&options.common, modes::send::run(options)),
        Command::Flood(options) => report(&options.common, modes::flood::run(options)),
        Command::Reconnect(options) => report(&options.common, modes::reconnect::run(options)),
        Command::Rest(options) => report(&options.common, modes::rest::run(options)),
        Command::Soak(options) => report(&options.common, modes::soak::run(options)),
        Command::Echo(options) => report(&options.common, modes::echo::run(options)),
        Command::Start(options) => modes::start::run(options).map(|()| true),
        Command::Figure(options) => modes::figure::run(options).map(|()| true),
        Command::MainApi(options) => on_runtime(1, modes::main_api::serve(options)).map(|()| true),
        Command::EchoServer(options) => on_runtime(2, modes::echo::serve(options)).map(|()| true),
    }
}

fn report(common: &Common, mode: impl Future<Output = Result<Report, String>>) -> Result<bool, String> {
    let report = on_runtime(common.threads, mode)?;
    {
        use std::io::{IsTerminal as _, Write as _};
        let mut stderr = std::io::stderr().lock();
        if stderr.is_terminal() {
            // The progress line makes room for the table; a terminal that is gone needs none.
            let _ = write!(stderr, "\r\x1b[2K");
        }
    }
    report.write(common.json.as_deref(), common.report.as_deref())?;
    Ok(report.is_clean)
}

fn on_runtime<T>(threads: usize, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime does not start: {error}"))?;
    let outcome = runtime.block_on(work);
    // Sockets that are still open end with the process.
    runtime.shutdown_background();
    outcome
}
