//! `rented-messaging health`, as a container's health check runs it.

use crate::{
    process::{Program, command, free_port},
    stand_ins::MainApi,
};

async fn ask(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = command(&folder).arg("health").envs(variables.iter().copied()).output().await.unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_alive_is_healthy_and_one_that_is_gone_is_not() {
    let main_api = MainApi::start().await;
    let mut program = Program::start(&main_api, &[]).await;
    let port = program.port.to_string();
    // Nothing else of the configuration is needed, not even in production.
    assert_eq!(ask(&[("PORT", &port)]).await, (Some(0), String::new()));
    assert_eq!(program.end().await, Some(0));
    let (code, sentence) = ask(&[("PORT", &port)]).await;
    assert_eq!(code, Some(1));
    assert_eq!(sentence, format!("rented-messaging: http://127.0.0.1:{port}/health cannot be reached.\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_else_answers_there_is_not_healthy() {
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    tokio::spawn(async move { axum::serve(stranger, axum::Router::new()).await.unwrap() });
    let (code, sentence) = ask(&[("PORT", &port)]).await;
    assert_eq!(code, Some(1));
    assert!(sentence.contains("404"), "{sentence}");
    let (code, sentence) = ask(&[("PORT", "many")]).await;
    assert_eq!(code, Some(1), "container engines know 0 and 1 alone");
    assert!(sentence.contains("PORT"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_certificate_of_its_own_is_asked_by_https() {
    let main_api = MainApi::start().await;
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["chat.example.test".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = [("TLS_CERT_PATH", cert.to_str().unwrap()), ("TLS_KEY_PATH", key.to_str().unwrap())];
    let program = Program::start(&main_api, &tls).await;
    let port = program.port.to_string();
    assert_eq!(ask(&[("PORT", &port), tls[0], tls[1]]).await, (Some(0), String::new()));
    assert_eq!(ask(&[("PORT", &free_port().to_string()), tls[0], tls[1]]).await.0, Some(1));
}
