//! The configuration as an operator meets it.

use std::{collections::HashMap, fs, path::Path};

use messaging::config::{
    self, Config, DatabaseUrl, Environment, LogFormat, Origins, RedisTopology, VARIABLES, Visibility,
};

fn read(vars: &[(&str, &str)]) -> Result<Config, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_env(vars).map_err(|error| error.to_string())
}

fn refusal(vars: &[(&str, &str)]) -> String {
    read(vars).map(|_| ()).expect_err("a refusal")
}

const PRODUCTION: [(&str, &str); 2] =
    [("NODE_ENV", "production"), ("MAIN_API_URL", "http://main-api:8000/api/v1")];

#[test]
fn an_empty_environment_gives_the_documented_defaults() {
    let config = read(&[]).expect("a configuration");
    assert_eq!(config.environment, Environment::Development);
    assert_eq!((config.server.host.to_string().as_str(), config.server.port), ("0.0.0.0", 3001));
    assert_eq!(config.main_api.timeout.as_millis(), 5000);
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("./data/messaging.db".into()));
    assert_eq!((config.database.pool_min, config.database.pool_max), (2, 10));
    assert_eq!(config.database.timeout.as_millis(), 5000);
    assert_eq!(config.redis.url, None);
    assert_eq!(config.redis.ttl.as_secs(), 3600);
    assert!(config.jwt.verification.is_none());
    assert_eq!(config.cors.origins, Origins::Localhost);
    assert_eq!(config.uploads.max_file_size, 10_485_760);
    assert_eq!(config.uploads.dir, Path::new("./uploads"));
    assert_eq!(config.messages.edit_window.as_secs(), 900);
    assert_eq!(config.messages.event_retention.as_secs(), 30 * 86_400);
    assert_eq!(config.limits, messaging::limits::Settings::default());
    assert_eq!(config.live.max_payload, 100_000);
    assert_eq!(config.live.max_connections_per_user, Some(20));
    assert_eq!(config.live.max_connections_per_ip, None);
    assert_eq!(config.live.max_unauthenticated_per_ip, Some(1000));
    assert_eq!(config.live.auth_timeout.as_secs(), 10);
    assert_eq!(config.live.ping_interval.as_secs(), 25);
    assert_eq!(config.server.handshake_timeout.as_secs(), 10);
    assert_eq!(config.server.body_timeout.as_secs(), 30);
    assert_eq!(config.server.shutdown_timeout.as_secs(), 10);
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Text, "info"));
}

#[test]
fn the_example_of_the_specification_is_understood_but_for_its_example_secret() {
    let mut vars = vec![
        ("PORT", "3001"),
        ("NODE_ENV", "production"),
        ("MAIN_API_URL", "http://main-api:8000/api/v1"),
        ("MAIN_API_TIMEOUT", "5000"),
        ("DATABASE_URL", "postgresql://user:password@localhost:5432/messaging_db"),
        ("DB_POOL_MIN", "2"),
        ("DB_POOL_MAX", "10"),
        ("REDIS_URL", "redis://localhost:6379"),
        ("REDIS_TTL", "3600"),
        ("JWT_SECRET", "your_jwt_secret"),
        ("JWT_ISSUER", "rented-marketplace"),
        ("CORS_ORIGIN", "http://localhost:3000,https://yourdomain.com"),
        ("MAX_FILE_SIZE", "10485760"),
        ("UPLOAD_DIR", "./uploads"),
    ];
    let sentence = refusal(&vars);
    assert!(sentence.starts_with("JWT_SECRET ") && !sentence.contains("your_jwt_secret"), "{sentence}");

    vars.retain(|(name, _)| *name != "JWT_SECRET");
    vars.push(("JWT_SECRET", "5b3f0c0d8e7a4f6c9a1b2c3d4e5f6071"));
    let config = read(&vars).expect("a configuration");
    assert!(config.environment.is_production());
    assert!(matches!(config.database.url, DatabaseUrl::Postgres(_)));
    assert_eq!(config.redis.url.expect("a URL").topology, RedisTopology::Single);
    assert_eq!(config.jwt.issuers, ["rented-marketplace"]);
    assert!(config.cors.origins.allows("https://yourdomain.com"));
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn node_env_and_app_env_are_one_switch() {
    for name in ["NODE_ENV", "APP_ENV"] {
        let config = read(&[(name, "production"), PRODUCTION[1]]).expect("a configuration");
        assert!(config.environment.is_production(), "{name}");
        assert!(!read(&[(name, "development")]).expect("a configuration").environment.is_production());
    }
    assert!(refusal(&[("NODE_ENV", "production"), ("APP_ENV", "local")]).contains("APP_ENV"));
    assert!(refusal(&[("APP_ENV", "prodcution")]).starts_with("APP_ENV "));
}

#[test]
fn production_refuses_a_star_and_a_missing_main_api() {
    assert!(refusal(&[("NODE_ENV", "production")]).starts_with("MAIN_API_URL "));
    let [environment, main_api] = PRODUCTION;
    assert!(refusal(&[environment, main_api, ("CORS_ORIGIN", "*")]).starts_with("CORS_ORIGIN "));
    assert!(read(&[("CORS_ORIGIN", "*")]).is_ok(), "development allows it");
    let config = read(&PRODUCTION).expect("a configuration");
    assert!(!config.cors.origins.allows("http://localhost:3000"), "no origin is allowed unless listed");
}

#[test]
fn serving_without_a_main_api_in_development_names_the_demo() {
    let error = read(&[]).expect("a configuration").main_api_url().expect_err("a refusal").to_string();
    assert!(error.starts_with("MAIN_API_URL ") && error.contains("rented-messaging demo"), "{error}");
    let config = read(&[("MAIN_API_URL", "http://main-api:8000/api/v1/")]).expect("a configuration");
    assert_eq!(config.main_api_url().expect("a URL"), "http://main-api:8000/api/v1");
}

#[test]
fn each_bad_value_is_one_sentence_that_names_the_variable() {
    for (name, value) in [
        ("PORT", "99999"),
        ("PORT", "3001x"),
        ("HOST", "not an address"),
        ("PUBLIC_URL", "chat.example.test"),
        ("TRUSTED_PROXIES", "10.0.0.0/64"),
        ("TLS_CERT_PATH", "/nowhere/tls.crt"),
        ("TLS_KEY_PATH", "/nowhere/tls.key"),
        ("HANDSHAKE_TIMEOUT", "0"),
        ("BODY_TIMEOUT", "-1"),
        ("SHUTDOWN_TIMEOUT", "soon"),
        ("MAIN_API_URL", "main-api:8000"),
        ("MAIN_API_TIMEOUT", "5s"),
        ("MAIN_API_USER_PATH", "/users/:id"),
        ("MAIN_API_CONCURRENCY", "0"),
        ("DATABASE_URL", "mysql://user:hunter2@localhost/db"),
        ("DB_POOL_MIN", "11"),
        ("DB_POOL_MAX", "0"),
        ("DB_TIMEOUT", "1e3"),
        ("REDIS_URL", "http://user:hunter2@localhost"),
        ("REDIS_TTL", "0"),
        ("JWT_SECRET", ""),
        ("JWT_SECRET", "changeme"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_PUBLIC_KEY", "/nowhere/jwt.pem"),
        ("CORS_ORIGIN", "yourdomain.com"),
        ("MAX_FILE_SIZE", "10MB"),
        ("URL_SIGNING_KEY", "  "),
        ("MESSAGE_EDIT_WINDOW", "15m"),
        ("EVENT_RETENTION_DAYS", "0"),
        ("RATE_LIMIT_MESSAGES", "-1"),
        ("RATE_LIMIT_BURST", "0"),
        ("RATE_LIMIT_TYPING", "many"),
        ("RATE_LIMIT_READS", "99999999999"),
        ("RATE_LIMIT_UPLOADS", "1.5"),
        ("RATE_LIMIT_CONVERSATIONS", "ten"),
        ("MAX_PAYLOAD", "1"),
        ("MAX_CONNECTIONS", "all"),
        ("MAX_CONNECTIONS_PER_USER", "-1"),
        ("MAX_CONNECTIONS_PER_IP", "x"),
        ("MAX_UNAUTHENTICATED_PER_IP", "x"),
        ("AUTH_TIMEOUT", "0"),
        ("PING_INTERVAL", "25s"),
        ("PING_TIMEOUT", "0"),
        ("WEBHOOK_URL", "shop.example.test/hook"),
        ("WEBHOOK_URL", "https://user:hunter2@shop.example.test/hook"),
        ("WEBHOOK_SECRET", "hunter2"),
        ("WEBHOOK_SECRET", ""),
        ("WEBHOOK_EVENTS", "message.imagined"),
        ("WEBHOOK_INCLUDE_TEXT", "perhaps"),
        ("WEBHOOK_ALLOW_PRIVATE", "perhaps"),
        ("WEBHOOK_TIMEOUT", "0"),
        ("WEBHOOK_RETRY_BASE", "5s"),
        ("WEBHOOK_MAX_ATTEMPTS", "11"),
        ("SERVICE_API_KEY", "hunter2"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "verbose"),
        ("METRICS_TOKEN", "changeme"),
        ("METRICS_PORT", "3001"),
        ("SMTP_URL", "http://user:hunter2@localhost"),
        ("SMTP_TIMEOUT", "30s"),
        ("EMAIL_FROM", "Rented"),
        ("EMAIL_DELAY", "0"),
        ("EMAIL_LANGUAGE", "../en"),
        ("APP_URL", "https://app.example.test/"),
    ] {
        let sentence = refusal(&[(name, value)]);
        assert!(sentence.starts_with(&format!("{name} ")), "{name}={value}: {sentence}");
        assert!(sentence.ends_with('.') && !sentence.contains('\n'), "{sentence}");
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
}

#[test]
fn mail_needs_a_sender_a_way_back_and_a_way_out() {
    let all = [
        ("SMTP_URL", "smtps://user:hunter2@mail.example.test"),
        ("EMAIL_FROM", "Rented <no-reply@example.test>"),
        ("APP_URL", "https://app.example.test/conversations/{conversation_id}"),
        ("PUBLIC_URL", "https://chat.example.test/"),
    ];
    let config = read(&all).expect("a configuration");
    let email = config.email.as_ref().expect("mail is configured");
    assert_eq!((email.delay.as_secs(), email.timeout.as_secs()), (900, 30));
    assert_eq!((email.language.as_str(), email.public_url.as_str()), ("en", "https://chat.example.test"));
    assert!(!format!("{config:?}").contains("hunter2"));
    for missing in ["EMAIL_FROM", "APP_URL", "PUBLIC_URL"] {
        let rest: Vec<_> = all.into_iter().filter(|(name, _)| *name != missing).collect();
        let sentence = refusal(&rest);
        assert!(sentence.starts_with(&format!("{missing} is not set, but SMTP_URL is")), "{sentence}");
        assert!(sentence.ends_with('.') && !sentence.contains("hunter2"), "{sentence}");
    }
    assert!(read(&all[1..]).expect("a configuration").email.is_none(), "without a server, no mail");
}

#[test]
fn mail_over_a_network_without_encryption_is_warned_of() {
    let warned = |url| {
        let rest = [
            ("EMAIL_FROM", "no-reply@example.test"),
            ("APP_URL", "https://app.example.test/{conversation_id}"),
            ("PUBLIC_URL", "https://chat.example.test"),
        ];
        let config = read(&[&rest[..], &[("SMTP_URL", url)]].concat()).expect("a configuration");
        config.warnings().iter().any(|warning| warning.starts_with("SMTP_URL "))
    };
    assert!(warned("smtp://mail.example.test"));
    assert!(!warned("smtp://localhost") && !warned("smtps://mail.example.test"));
}

#[test]
fn zero_is_no_limit() {
    let config = read(&[
        ("RATE_LIMIT_MESSAGES", "0"),
        ("RATE_LIMIT_TYPING", "0"),
        ("RATE_LIMIT_READS", "1"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS_PER_USER", "0"),
    ])
    .expect("a configuration");
    assert_eq!((config.limits.messages, config.limits.typing, config.limits.reads), (0, 0, 1));
    assert_eq!((config.live.max_connections, config.live.max_connections_per_user), (None, None));
}

#[test]
fn an_empty_value_counts_as_not_set() {
    let config = read(&[("REDIS_URL", ""), ("PORT", " "), ("CORS_ORIGIN", "")]).expect("a configuration");
    assert_eq!((config.redis.url, config.server.port), (None, 3001));
    assert_eq!(config.cors.origins, Origins::Localhost);
}

#[test]
fn data_dir_moves_the_embedded_database() {
    let config = read(&[("DATA_DIR", "/var/lib/messaging")]).expect("a configuration");
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("/var/lib/messaging/messaging.db".into()));
}

#[test]
fn tls_needs_both_files_and_both_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (cert, key, other) = (path("tls.crt"), path("tls.key"), path("other.txt"));
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("written");
    fs::write(&other, "nothing of the kind").expect("written");

    assert!(read(&[("TLS_CERT_PATH", &cert), ("TLS_KEY_PATH", &key)]).expect("both").server.tls.is_some());
    assert!(refusal(&[("TLS_CERT_PATH", &cert)]).starts_with("TLS_KEY_PATH "));
    assert!(refusal(&[("TLS_KEY_PATH", &key)]).starts_with("TLS_CERT_PATH "));
    assert!(refusal(&[("TLS_CERT_PATH", &other), ("TLS_KEY_PATH", &key)]).starts_with("TLS_CERT_PATH "));
    assert!(refusal(&[("TLS_CERT_PATH", &cert), ("TLS_KEY_PATH", &other)]).starts_with("TLS_KEY_PATH "));
}

#[test]
fn a_public_key_goes_with_its_algorithm() {
    let pem = include_str!("keys/es256.pub.pem");
    let one_line = pem.replace('\n', "\\n");
    for key in [pem, &one_line] {
        let config = read(&[("JWT_ALGORITHM", "ES256"), ("JWT_PUBLIC_KEY", key)]).expect("a configuration");
        assert!(config.jwt.verification.is_some());
    }
    assert!(refusal(&[("JWT_ALGORITHM", "RS256"), ("JWT_PUBLIC_KEY", pem)]).starts_with("JWT_PUBLIC_KEY "));
    assert!(refusal(&[("JWT_ALGORITHM", "ES256")]).starts_with("JWT_PUBLIC_KEY "));
    assert!(refusal(&[("JWT_PUBLIC_KEY", pem)]).starts_with("JWT_PUBLIC_KEY "), "never taken for a secret");
}

#[test]
fn the_description_shows_every_variable_and_no_secret() {
    let config = read(&[
        ("JWT_SECRET", "hunter2-jwt"),
        ("URL_SIGNING_KEY", "hunter2-url"),
        ("METRICS_TOKEN", "hunter2-metrics"),
        ("DATABASE_URL", "postgres://user:hunter2@localhost/db"),
        ("REDIS_URL", "redis://:hunter2@localhost"),
        ("PORT", "4000"),
    ])
    .expect("a configuration");
    let lines = config.describe();
    assert_eq!(lines.len(), VARIABLES.len());
    assert!(!lines.join("\n").contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    for line in [
        "PORT=4000",
        "HOST=0.0.0.0  (default)",
        "JWT_SECRET=***",
        "DATABASE_URL=postgres://user:***@localhost/db",
        "LOG_FORMAT=text  (default)",
        "PUBLIC_URL  (not set)",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line} is missing in {lines:#?}");
    }
}

#[test]
fn every_variable_of_the_table_is_read() {
    // A value of blanks for a secret, and nonsense for the rest: what is read, refuses or shows it.
    for variable in VARIABLES {
        let value = if variable.visibility == Visibility::Secret { " " } else { "\u{1}nonsense" };
        let noticed = match read(&[(variable.name, value)]) {
            Err(sentence) => sentence.starts_with(variable.name),
            Ok(config) => config.describe().contains(&format!("{}={value}", variable.name)),
        };
        assert!(noticed, "{} is in the table, but nobody reads it", variable.name);
    }
}

#[test]
fn the_example_file_is_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.env.example");
    if std::env::var_os("UPDATE_ENV_EXAMPLE").is_some() {
        fs::write(&file, config::example_file()).expect("written");
    }
    let text = fs::read_to_string(&file).expect("the file is there");
    assert!(text == config::example_file(), "set UPDATE_ENV_EXAMPLE=1 and run this test again");
}

#[test]
fn the_example_file_is_a_working_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(".env");
    fs::write(&file, config::example_file()).expect("written");
    let vars = dotenvy::from_path_iter(&file).expect("a file").collect::<Result<HashMap<_, _>, _>>();
    let from_file = Config::from_env(vars.expect("lines")).expect("a configuration");
    let values =
        |config: &Config| config.settings().iter().map(|setting| setting.value.clone()).collect::<Vec<_>>();
    assert_eq!(values(&from_file), values(&read(&[]).expect("a configuration")), "it only says the defaults");
}

#[test]
fn a_broken_env_file_is_reported_without_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(".env");
    assert!(config::environment(&file).is_ok(), "no file is fine");
    fs::write(&file, "JWT_SECRET=hunter2 \"unclosed\n").expect("written");
    let sentence = config::environment(&file).expect_err("a refusal").to_string();
    assert!(sentence.contains(".env") && !sentence.contains("hunter2"), "{sentence}");
}

#[test]
fn a_service_key_must_be_long_and_ones_own() {
    const KEY: &str = "b0f1a4d89c7e4f2a8f6d13c5e7a90b2d";
    assert!(read(&[]).expect("a configuration").service.keys.is_empty());
    let both =
        [("SERVICE_API_KEY", KEY), ("SERVICE_API_KEY_PREVIOUS", "an-older-key-of-32-bytes-or-more-0123")];
    let config = read(&both).expect("a configuration");
    assert_eq!(config.service.keys.len(), 2);
    assert!(config.describe().iter().all(|line| !line.contains(KEY)));
    assert!(!format!("{config:?}").contains(KEY));
    for bad in [
        "",
        " ",
        "your_service_api_key",
        &KEY[1..],
        &"changeme".repeat(4),
        &format!("{KEY} {KEY}"),
        &"é".repeat(40),
    ] {
        let sentence = refusal(&[("SERVICE_API_KEY", bad)]);
        assert!(
            sentence.starts_with("SERVICE_API_KEY ") && (bad.len() < 3 || !sentence.contains(bad)),
            "{sentence}"
        );
        let old = [("SERVICE_API_KEY", KEY), ("SERVICE_API_KEY_PREVIOUS", bad)];
        assert!(refusal(&old).starts_with("SERVICE_API_KEY_PREVIOUS "), "{bad}");
    }
    assert!(refusal(&[("SERVICE_API_KEY_PREVIOUS", KEY)]).contains("without SERVICE_API_KEY"));
}
