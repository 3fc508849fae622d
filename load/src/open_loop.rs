//! The open loop: an upload starts when its time has come, whether or not the ones before were answered, so
//! that queueing shows instead of slowing the load down. Latency counts from the time an upload was due.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::arrivals::Arrivals;
use crate::slow::{self, Manner};
use crate::tally::{Run, Stream};
use crate::upload::{Bodies, Uploader};

/// How an upload is sent.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    /// As a client on a good line does.
    Swift(Uploader),
    /// Over a connection of its own, slowly.
    Slow(slow::Client, Manner),
}

/// One row of uploads.
#[derive(Debug)]
pub(crate) struct Flow<B> {
    pub(crate) stream: Stream,
    pub(crate) arrivals: Arrivals,
    pub(crate) bodies: B,
    pub(crate) sender: Sender,
}

/// Sends a flow's uploads when they are due and waits for their answers. What finds no place among those
/// `open` at once is counted as not sent: the generator's memory is bounded, its schedule is not moved.
pub(crate) async fn run(mut flow: Flow<impl Bodies>, run: Run, open: Arc<Semaphore>) -> Result<()> {
    let mut sent = JoinSet::new();
    for due in flow.arrivals.by_ref() {
        tokio::time::sleep_until(run.at(due)).await;
        while let Some(done) = sent.try_join_next() {
            done?;
        }
        let Ok(place) = Arc::clone(&open).try_acquire_owned() else {
            run.not_sent(flow.stream, due);
            continue;
        };
        run.sending(due);
        let (run, body) = (run.clone(), flow.bodies.next());
        let (stream, sender) = (flow.stream, flow.sender.clone());
        sent.spawn(async move {
            upload(&sender, stream, &run, due, body).await;
            drop(place);
        });
    }
    while let Some(done) = sent.join_next().await {
        done?;
    }
    Ok(())
}

async fn upload(sender: &Sender, stream: Stream, run: &Run, due: Duration, body: Vec<u8>) {
    match sender {
        Sender::Swift(uploader) => {
            let answer = uploader.send(body).await;
            run.answered(stream, due, due, answer);
        }
        Sender::Slow(client, manner) => {
            let (sent, answer) = client.send(*manner, &body).await;
            // The time it took to send is the client's own.
            let since = sent.map_or(due, |sent| run.offset(sent));
            run.answered(stream, due, since, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::arrivals::Shape;
    use crate::pictures::{Mix, Source};
    use crate::upload::{Endpoint, Outcome};

    /// Answers every upload with a verdict, after `pause`.
    async fn a_gate(pause: Duration) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    // A picture of one byte comes with its head in one piece.
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                        tokio::time::sleep(pause).await;
                        let answer = b"HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 16\r\n\r\n{\"cached\":false}";
                        stream.write_all(answer).await.expect("it is read");
                    }
                });
            }
        });
        format!("http://{address}")
    }

    fn flow(base: &str, rate: f64, length: Duration) -> Flow<Source> {
        let uploader = Uploader::new(base, "k", Endpoint::Images).expect("a client");
        Flow {
            stream: "interactive",
            arrivals: Arrivals::even(Shape::Steady { rate }, length),
            bodies: Source::new(vec![Vec::new()], Mix::Fresh, "t", 1),
            sender: Sender::Swift(uploader),
        }
    }

    #[tokio::test]
    async fn arrivals_do_not_wait_for_answers() {
        let (length, pause) = (Duration::from_millis(500), Duration::from_millis(400));
        let base = a_gate(pause).await;
        let a_run = Run::begin(length);
        run(flow(&base, 100.0, length), a_run.clone(), Arc::new(Semaphore::new(1000))).await.expect("runs");
        let tally = a_run.tally();
        // A closed loop of one would have got two answers in that time.
        assert_eq!(tally.verdicts("interactive").len(), 50);
        assert!(tally.verdicts("interactive").min() >= 399_000);
        assert!(tally.other_ends(Outcome::is_verdict).is_empty(), "{tally:?}");
        assert!(tally.faults.is_empty(), "{:?}", tally.faults);
    }

    #[tokio::test]
    async fn what_finds_no_place_is_not_sent_and_said() {
        let length = Duration::from_millis(200);
        let base = a_gate(Duration::from_secs(3)).await;
        let a_run = Run::begin(length);
        run(flow(&base, 100.0, length), a_run.clone(), Arc::new(Semaphore::new(3))).await.expect("runs");
        let tally = a_run.tally();
        assert_eq!((tally.verdicts("interactive").len(), tally.not_sent["interactive"]), (3, 17));
        assert_eq!(tally.other_ends(Outcome::is_verdict)["not sent"], 17);
        assert_eq!(tally.lag.len(), 3);
    }
}
