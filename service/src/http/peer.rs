//! Whether a request's client is still there, so that nothing is judged for nobody.
//!
//! The framework drops a handler only when it fails to write, and a judge's answer is minutes away. Its
//! switch against half-closed connections would also drop requests whose body broke off, before they are
//! told so; here the look begins after the body.

use std::any::Any;
use std::future::pending;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;

/// A judge that works this much longer for nobody does no harm.
const LOOK: Duration = Duration::from_millis(250);

/// The connection's own handle.
struct Peer(RawFd);

/// For [`actix_web::HttpServer::on_connect`].
pub(super) fn remember(connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() {
        data.insert(Peer(stream.as_raw_fd()));
    }
}

/// Returns when the client has closed its side or is gone.
pub(super) async fn left(request: &HttpRequest) {
    let Some(Peer(handle)) = request.conn_data::<Peer>() else { return pending().await };
    // SAFETY: the connection owns the handle and the handler that polls this, so it is open here.
    let handle = unsafe { BorrowedFd::borrow_raw(*handle) }.try_clone_to_owned();
    // Out of handles: then its leaving is not noticed.
    let Ok(stream) = handle.map(TcpStream::from) else { return pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        match stream.peek(&mut [0]) {
            Ok(0) => return,
            // The next request is there already, so the client is too.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}
