//! The lines about the end of the pod that its terminals show, as `wall` writes them. All other
//! channels carry data, and get no byte of them.
//!
//! ```text
//! lease_file ─▶ update ─▶ EndNotices ─▶ line ─▶ Lines of each terminal ─▶ between its output
//! ```

use crate::lease_end::{EndNotices, LeaseEnd};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// How long the last line may take to the clients: the pod's grace period may be a second.
pub(crate) const LAST_LINE_TIMEOUT: Duration = Duration::from_millis(300);

#[derive(Clone)]
enum Line {
    Notice(Bytes),
    /// The server stops.
    Last(Bytes),
}

/// A line apart from what is on the screen.
fn line(text: &str) -> Bytes {
    Bytes::from(format!("\r\n{text}\r\n"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What the terminals of all connections have in common.
pub(crate) struct Terminals {
    notices: Mutex<EndNotices>,
    /// The latest line. Whoever has not taken the one before, for want of a reader, gets this one.
    line: watch::Sender<Option<Line>>,
}

impl Default for Terminals {
    fn default() -> Self {
        Self { notices: Mutex::default(), line: watch::Sender::new(None) }
    }
}

impl Terminals {
    fn notices(&self) -> MutexGuard<'_, EndNotices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is known of the end, and shows what is to be shown now. Returns how long it is
    /// until the next notice.
    pub(crate) fn update(&self, end: Option<LeaseEnd>) -> Option<Duration> {
        let (mut notices, now) = (self.notices(), now());
        let moved = end.and_then(|end| notices.set(end, now));
        if let Some(text) = moved.or_else(|| notices.due_notice(now))
            && !self.have_had_last()
        {
            self.line.send_replace(Some(Line::Notice(line(&text))));
        }
        notices.until_next(now).map(Duration::from_secs)
    }

    /// The lines of a terminal that is opened now.
    pub(crate) fn open(&self) -> Lines {
        // Locked until it has subscribed: a notice that is given meanwhile is shown once.
        let notices = self.notices();
        let at_login = notices.at_login(now()).map(|text| line(&text));
        Lines { at_login, lines: Some(self.line.subscribe()), is_last: false }
    }

    /// Shows the last line, and waits until all terminals have sent it, though not for those whose
    /// client does not read.
    pub(crate) async fn show_last(&self) {
        {
            let notices = self.notices();
            let Some(text) = notices.last(now()) else { return };
            self.line.send_replace(Some(Line::Last(line(text))));
        }
        let _ = tokio::time::timeout(LAST_LINE_TIMEOUT, self.line.closed()).await;
    }

    /// Whether terminals have had a last line, which clients must get before their connection ends.
    pub(crate) fn have_had_last(&self) -> bool {
        matches!(*self.line.borrow(), Some(Line::Last(_)))
    }
}

/// The lines of one terminal.
pub(crate) struct Lines {
    at_login: Option<Bytes>,
    /// None after the last line.
    lines: Option<watch::Receiver<Option<Line>>>,
    is_last: bool,
}

impl Lines {
    /// The next line; none after the last one, which was sent then. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.at_login.take() {
            return Some(line);
        }
        if self.is_last {
            self.lines = None;
            return None;
        }
        while let Some(lines) = &mut self.lines {
            if lines.changed().await.is_err() {
                break;
            }
            let line = lines.borrow_and_update().clone();
            match line {
                Some(Line::Notice(line)) => return Some(line),
                Some(Line::Last(line)) => {
                    self.is_last = true;
                    return Some(line);
                }
                None => {}
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn end_in(seconds: u64) -> Option<LeaseEnd> {
        LeaseEnd::new(now().saturating_add(seconds), vec![600]).ok()
    }

    fn text(line: Option<Option<Bytes>>) -> String {
        String::from_utf8(line.flatten().expect("a line").to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_terminal_has_what_is_new_and_at_its_login_what_is_due() {
        let terminals = Terminals::default();
        let next = terminals.update(end_in(3_600)).unwrap().as_secs();
        assert!((2_999..=3_000).contains(&next), "{next}");
        let mut early = terminals.open();
        assert!(early.next().now_or_never().is_none());
        assert_eq!(terminals.update(end_in(300)), None);
        let shown = text(early.next().now_or_never());
        assert!(shown.starts_with("\r\nThis pod ends at ") && shown.ends_with(".\r\n"), "{shown}");
        assert!(early.next().now_or_never().is_none(), "once");
        let mut later = terminals.open();
        assert!(text(later.next().now_or_never()).contains("in 5 minutes."));
        assert!(later.next().now_or_never().is_none(), "once");
        terminals.update(end_in(7_200));
        for terminal in [&mut early, &mut later] {
            assert!(text(terminal.next().now_or_never()).contains("extended until"));
        }
        assert!(terminals.open().next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_last_line_is_waited_for_until_it_is_sent() {
        let terminals = Terminals::default();
        terminals.show_last().await;
        assert!(!terminals.have_had_last(), "no end is known");
        terminals.update(end_in(0));
        let mut open = terminals.open();
        let mut stopping = std::pin::pin!(terminals.show_last());
        assert!((&mut stopping).now_or_never().is_none());
        assert!(text(open.next().now_or_never()).contains("its time is over"));
        assert!((&mut stopping).now_or_never().is_none(), "it is not sent yet");
        assert_eq!(open.next().now_or_never(), Some(None));
        stopping.await;
        assert!(terminals.have_had_last());
    }
}
