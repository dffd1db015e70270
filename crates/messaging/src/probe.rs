//! `rented-messaging health`: asks the service of this configuration whether it is alive, for containers
//! without curl.

use std::{net::IpAddr, time::Duration};

use crate::{config::Config, identity::main_api::install_crypto_provider};

/// Longer than a healthy service ever takes, shorter than any orchestrator waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `/health` on the configured port of this machine; an error is a sentence.
pub async fn ask_health(config: &Config) -> Result<(), String> {
    install_crypto_provider();
    let url = health_url(config);
    // The certificate is for the name that clients use, not for this address.
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(|error| format!("the question cannot be asked: {error}."))?;
    match client.get(&url).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("{url} answered {}.", answer.status())),
        Err(error) if error.is_timeout() => Err(format!("{url} did not answer in time.")),
        Err(_) => Err(format!("{url} cannot be reached.")),
    }
}

fn health_url(config: &Config) -> String {
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let host = match config.server.host {
        IpAddr::V4(host) if host.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(host) if host.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    };
    format!("{scheme}://{host}:{}/health", config.server.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_asked_where_it_listens() {
        for (host, url) in [
            ("0.0.0.0", "http://127.0.0.1:8080/health"),
            ("::", "http://[::1]:8080/health"),
            ("10.0.0.7", "http://10.0.0.7:8080/health"),
        ] {
            let vars = [("HOST", host), ("PORT", "8080")].map(|(name, value)| (name.into(), value.into()));
            assert_eq!(health_url(&Config::from_env(vars.into()).expect("a configuration")), url);
        }
    }
}
