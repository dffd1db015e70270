//! REST over one keep-alive connection, one request at a time.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::target::Target;

/// A keep-alive connection.
#[derive(Debug)]
pub struct Http {
    target: Target,
    requests: SendRequest<Full<Bytes>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Http {
    /// Connects.
    pub async fn open(target: &Target, index: u32) -> Result<Self, String> {
        let stream = target.open(index).await.map_err(|error| format!("connecting failed: {error}"))?;
        let (requests, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| format!("connecting failed: {error}"))?;
        tokio::spawn(async move {
            // Whoever waits for an answer hears of the connection's end.
            let _ = connection.await;
        });
        Ok(Self { target: target.clone(), requests })
    }

    /// Asks and waits for the whole answer.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header(header::HOST, &self.target.authority)
            .header(header::ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            request.body(Full::default()).map_err(|error| format!("{path} cannot be asked for: {error}"))?;
        let failed = |error: hyper::Error| format!("the request failed: {error}");
        self.requests.ready().await.map_err(failed)?;
        let (head, body) = self.requests.send_request(request).await.map_err(failed)?.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}
