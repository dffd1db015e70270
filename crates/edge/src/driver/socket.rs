//! The WebSocket end of a driver: bytes in to messages, queued items out to bytes.
//!
//! Owns the stream, a partial frame while there is one, and the batch being written; when idle it owns no buffer
//! at all. Framing rules are in [`crate::codec::frame`]; what messages mean is in `read`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::codec::frame::{self, Decoder, FrameError, Incoming, Limits, Opcode};
use crate::handler::Dialect;
use crate::link::{Link, Outgoing};

/// How much is read at once, into a buffer that a thread's connections share.
const SCRATCH: usize = 32 * 1024;
/// How many things, and about how many bytes, go out in one write.
const BATCH_ITEMS: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends the thread's buffer out; a nested loan gets a fresh one.
fn with_scratch<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut scratch = SPARE.take().unwrap_or_else(|| vec![0; SCRATCH].into());
    let result = use_it(&mut scratch);
    SPARE.set(Some(scratch));
    result
}

/// The raw stream below a connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    /// Boxed: TLS has buffers and keys of its own, which TCP connections must not make room for.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        })?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

pub(crate) struct Socket {
    stream: Stream,
    decoder: Decoder,
    /// Bytes read and not used: a partial frame, or frames that wait their turn, from `used` on.
    rest: Vec<u8>,
    used: usize,
    /// What is being written; the first may be cut short already.
    batch: VecDeque<Bytes>,
    /// Bytes of the whole batch, as the link counts them.
    batch_cost: usize,
}

/// Why there are no more messages.
#[derive(Debug)]
pub(super) enum ReadError {
    Gone,
    Bad(FrameError),
}

impl Socket {
    /// Takes the raw stream back from hyper, with what hyper had read beyond the request.
    pub(crate) fn from_upgraded(upgraded: Upgraded) -> Option<Self> {
        let (stream, read_buf) = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(Parts { io, read_buf, .. }) => (Stream::Tcp(io.into_inner()), read_buf),
            Err(upgraded) => {
                let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
                (Stream::Tls(Box::new(io.into_inner())), read_buf)
            }
        };
        Some(Self {
            stream,
            decoder: Decoder::default(),
            // Copied, not converted: that would keep hyper's whole buffer of 8 KB, empty or not.
            rest: read_buf.to_vec(),
            used: 0,
            batch: VecDeque::new(),
            batch_cost: 0,
        })
    }

    /// Whether a fragmented message was begun and not finished.
    pub(super) fn in_fragments(&self) -> bool {
        self.decoder.in_message()
    }

    /// Whether bytes wait that were not used: a partial frame, once there is no whole message.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The next message, handed to `take` while it still lies in the buffer.
    pub(super) fn poll_message<R>(
        &mut self,
        cx: &mut Context<'_>,
        limits: Limits,
        take: impl FnOnce(Incoming<'_>) -> R,
    ) -> Poll<Result<R, ReadError>> {
        let mut take = Some(take);
        loop {
            if !self.rest.is_empty() {
                let mut rest = std::mem::take(&mut self.rest);
                let found = decode(
                    &mut self.decoder,
                    rest.get_mut(self.used..).unwrap_or_default(),
                    limits,
                    &mut take,
                );
                let (used, found) = found.map_err(ReadError::Bad)?;
                self.used += used;
                if self.used < rest.len() {
                    self.rest = rest;
                } else {
                    self.used = 0;
                }
                if let Some(found) = found {
                    return Poll::Ready(Ok(found));
                }
            }
            let found = ready!(with_scratch(|scratch| self.read_into(cx, scratch, limits, &mut take)))?;
            if let Some(found) = found {
                return Poll::Ready(Ok(found));
            }
        }
    }

    /// Reads once; decodes in place where nothing older waits, else appends to that.
    fn read_into<R>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        limits: Limits,
        take: &mut Option<impl FnOnce(Incoming<'_>) -> R>,
    ) -> Poll<Result<Option<R>, ReadError>> {
        let read = match ready!(self.stream.poll_read(cx, scratch)) {
            Ok(0) | Err(_) => return Poll::Ready(Err(ReadError::Gone)),
            Ok(read) => read,
        };
        let fresh = scratch.get_mut(..read).unwrap_or_default();
        if !self.rest.is_empty() {
            self.rest.drain(..self.used);
            self.used = 0;
            self.rest.extend_from_slice(fresh);
            return Poll::Ready(Ok(None));
        }
        let (used, found) = decode(&mut self.decoder, fresh, limits, take).map_err(ReadError::Bad)?;
        self.rest = fresh.get(used..).unwrap_or_default().to_vec();
        Poll::Ready(Ok(found))
    }

    /// Reads and forgets until the other side is done.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.rest = Vec::new();
        with_scratch(|scratch| {
            loop {
                if let Ok(0) | Err(_) = ready!(self.stream.poll_read(cx, scratch)) {
                    return Poll::Ready(());
                }
            }
        })
    }

    /// Writes what is queued; ready when all of it is out. `begin` is told whenever a batch begins.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link,
        mut begin: impl FnMut(),
    ) -> Poll<io::Result<()>> {
        loop {
            if self.batch.is_empty() {
                let done = std::mem::take(&mut self.batch_cost);
                self.batch_cost = link.take(done, BATCH_ITEMS, BATCH_BYTES, |item| {
                    self.batch.push_back(to_frames(item, link.dialect));
                });
                if self.batch.is_empty() {
                    self.batch = VecDeque::new();
                    return self.stream.poll_flush(cx);
                }
                begin();
            }
            let mut slices = [IoSlice::new(&[]); BATCH_ITEMS];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.batch) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let written = ready!(self.stream.poll_write(cx, slices.get(..count).unwrap_or_default()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.batch.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.batch.pop_front();
        }
    }

    /// Writes one text at once; only while nothing else is being written.
    pub(super) async fn write_text(&mut self, text: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        frame::put(&mut out, Opcode::Text, &[text]);
        let mut left = &*out;
        while !left.is_empty() {
            let written =
                std::future::poll_fn(|cx| self.stream.poll_write(cx, &[IoSlice::new(left)])).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = left.get(written..).unwrap_or_default();
        }
        std::future::poll_fn(|cx| self.stream.poll_flush(cx)).await
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_shutdown(cx).map(drop)
    }
}

/// Takes messages off `bytes` until one is found that is whole; says how many bytes were used.
fn decode<R>(
    decoder: &mut Decoder,
    bytes: &mut [u8],
    limits: Limits,
    take: &mut Option<impl FnOnce(Incoming<'_>) -> R>,
) -> Result<(usize, Option<R>), FrameError> {
    let mut at = 0;
    loop {
        let (used, incoming) = decoder.next(bytes.get_mut(at..).unwrap_or_default(), limits)?;
        at += used;
        match incoming {
            Some(incoming) => return Ok((at, take.take().map(|take| take(incoming)))),
            None if used == 0 => return Ok((at, None)),
            None => {}
        }
    }
}

/// The whole WebSocket frames of an item.
fn to_frames(item: Outgoing, dialect: Dialect) -> Bytes {
    let framed = |opcode, bytes: &[u8]| {
        let mut out = Vec::new();
        frame::put(&mut out, opcode, &[bytes]);
        out.into()
    };
    match item {
        Outgoing::Event(event) => event.frames(dialect).clone(),
        Outgoing::Text(text) => framed(Opcode::Text, &text),
        Outgoing::Binary(bytes) => framed(Opcode::Binary, &bytes),
        Outgoing::Frames(frames) => frames,
    }
}
