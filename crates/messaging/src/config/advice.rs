//! What the start tells an operator: which parts are on, and what should be known though nothing is wrong.

use super::{Config, DatabaseUrl, Origins};

impl Config {
    /// The parts of the service that can be on or off, and whether they are.
    pub fn features(&self) -> Vec<(&'static str, bool)> {
        let limits = &self.limits;
        vec![
            ("tls", self.server.tls.is_some()),
            ("redis", self.redis.url.is_some()),
            ("jwt_check", self.jwt.verification.is_some()),
            ("bucket", self.uploads.dir.to_string_lossy().contains("://")),
            ("rate_limits", limits.messages > 0),
            ("metrics", !self.environment.is_production() || self.has_metrics()),
            ("traces", self.traces.endpoint.is_some()),
            ("error_reports", self.sentry_dsn.is_some()),
            ("push", self.push.is_on()),
            ("email", self.email.is_some()),
            ("webhooks", !self.webhooks.urls.is_empty()),
            ("internal_calls", !self.service.keys.is_empty()),
        ]
    }

    fn has_metrics(&self) -> bool {
        self.metrics.token.is_some() || self.metrics.port.is_some()
    }

    /// What an operator should know at the start though nothing is wrong, a sentence each.
    pub fn warnings(&self) -> Vec<&'static str> {
        let is_production = self.environment.is_production();
        let proxies = self.server.trusted_proxies.networks();
        let limits = &self.limits;
        let others = [limits.typing, limits.reads, limits.uploads, limits.conversations];
        let is_sqlite = matches!(self.database.url, DatabaseUrl::Sqlite(_));
        let level = self.log.level.to_ascii_lowercase();
        let all = [
            (self.cors.origins == Origins::Any, "CORS_ORIGIN is *: pages of any origin may call."),
            (
                self.jwt.secret.as_ref().is_some_and(|secret| secret.expose().len() < 32),
                "JWT_SECRET is shorter than 32 bytes: it can be guessed.",
            ),
            (
                !self.jwt.issuers.is_empty() && self.jwt.verification.is_none(),
                "JWT_ISSUER has no effect without JWT_SECRET or JWT_PUBLIC_KEY.",
            ),
            (
                limits.messages == 0,
                "RATE_LIMIT_MESSAGES is 0: nothing keeps one user from flooding everybody.",
            ),
            (others.contains(&0), "A RATE_LIMIT_… is 0: what it counts is not limited."),
            (
                is_sqlite && self.redis.url.is_some(),
                "REDIS_URL is set, but the database is SQLite, which belongs to one node alone.",
            ),
            (
                proxies.iter().any(|network| network.prefix_len() == 0),
                "TRUSTED_PROXIES trusts everybody: clients can choose the address they are known by.",
            ),
            (
                is_production && self.server.tls.is_none() && proxies.is_empty(),
                "Neither TLS_CERT_PATH nor TRUSTED_PROXIES is set: tokens travel as plain HTTP unless a proxy encrypts them.",
            ),
            (
                is_production
                    && self.server.public_url.as_deref().is_some_and(|url| url.starts_with("http:")),
                "PUBLIC_URL is http: the addresses of files are followed unencrypted.",
            ),
            (
                self.email.as_ref().is_some_and(|email| email.smtp.is_plain()),
                "SMTP_URL leads over a network without asking for encryption: use smtps:// or ?tls=required.",
            ),
            (
                is_production && self.webhooks.urls.iter().any(|url| url.scheme() == "http"),
                "WEBHOOK_URL is plain http: what people write can be read on its way to the main API.",
            ),
            (
                is_production && !self.has_metrics(),
                "/metrics is closed: set METRICS_TOKEN or METRICS_PORT to open it.",
            ),
            (
                is_production && (level.contains("debug") || level.contains("trace")),
                "LOG_LEVEL writes a line for every request: meant for looking into something, not for long.",
            ),
        ];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, sentence)| sentence).collect()
    }
}
