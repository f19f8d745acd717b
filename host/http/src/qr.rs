//! Payment requests as QR codes, for the page.

use crate::limits;
use crate::problem::Problem;
use paygress_core::model::refusal::{ErrorType, Refusal};
use qrcode::{Color, QrCode};
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What payment requests begin with, in either case.
const PREFIX: &str = "creq";
/// What is light around the code, in modules.
const QUIET: usize = 4;
/// The side of a module, in pixels.
const MODULE_PIXELS: usize = 4;

/// Draws codes, so many at a time.
pub(crate) struct QrCodes {
    permits: Arc<Semaphore>,
}

impl Default for QrCodes {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(limits::QR_CODES)) }
    }
}

impl QrCodes {
    /// This payment request as SVG.
    pub(crate) async fn draw(&self, text: String) -> Result<String, Problem> {
        let is_request =
            text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        if !is_request || text.len() > limits::QR_BYTES {
            return Err(Problem::invalid(&format!(
                "text is a payment request: it begins with {PREFIX} and has at most {} bytes",
                limits::QR_BYTES
            )));
        }
        let drawn = self.compute(move || QrCode::new(text).map(|code| svg(&code))).await?;
        drawn.map_err(|_| Problem::invalid("text does not fit into a QR code"))
    }

    /// On a thread of its own, with a permit that it has to its end: also if the client has gone.
    async fn compute<T: Send + 'static>(
        &self,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = timeout(limits::QR_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let message = "too many QR codes are drawn now; try again after the time in Retry-After, or copy the payment request";
            return Err(Refusal::new(ErrorType::ResourceUnavailable, message).into());
        };
        let computed = tokio::task::spawn_blocking(move || {
            let computed = compute();
            drop(permit);
            computed
        });
        computed.await.map_err(|_| Problem::internal("the QR code could not be drawn"))
    }
}

/// Each row's dark modules are lines in one path, which is a sixth of what a square for each takes.
fn svg(code: &QrCode) -> String {
    let side = code.width().saturating_add(QUIET.saturating_mul(2));
    let pixels = side.saturating_mul(MODULE_PIXELS);
    let path = path(&code.to_colors(), code.width());
    // A line is as wide as a module, half of it above the line.
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{pixels}\" height=\"{pixels}\" \
         viewBox=\"-{QUIET} -{QUIET}.5 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M-{QUIET}-{QUIET}.5h{side}v{side}h-{side}z\"/>\
         <path stroke=\"#000\" d=\"{path}\"/></svg>"
    )
}

fn path(modules: &[Color], width: usize) -> String {
    let mut path = String::new();
    for (y, row) in modules.chunks(width).enumerate() {
        // Where the last line of this row ended, and where the next run of one colour begins.
        let (mut end, mut x) = (None, 0_usize);
        for run in row.chunk_by(|one, other| one == other) {
            let next = x.saturating_add(run.len());
            if run.first() == Some(&Color::Dark) {
                // Nothing fails that writes to a string.
                let _ = match end {
                    None => write!(path, "M{x} {y}h{}", run.len()),
                    Some(end) => write!(path, "m{} 0h{}", x.saturating_sub(end), run.len()),
                };
                end = Some(next);
            }
            x = next;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;
    use tokio::sync::mpsc::unbounded_channel;
    use tokio::task::JoinSet;

    const LONG: Duration = Duration::from_secs(30);

    /// As long as a payment request may be, and as mixed.
    fn longest() -> String {
        let of_base64 = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').map(char::from);
        let mixed: String = of_base64.cycle().step_by(23).take(limits::QR_BYTES).collect();
        format!("creqA{mixed}").chars().take(limits::QR_BYTES).collect()
    }

    /// The modules that such a path makes dark.
    fn drawn(path: &str, width: usize) -> Vec<Color> {
        let number = |text: &str| text.parse::<usize>().unwrap();
        let mut modules = vec![Color::Light; width.saturating_mul(width)];
        for row in path.split('M').skip(1) {
            let (mut x, mut y) = (0_usize, 0_usize);
            for line in row.split('m') {
                let (start, length) = line.split_once('h').unwrap();
                let (right, down) = start.split_once(' ').unwrap();
                (x, y) = (x.saturating_add(number(right)), y.saturating_add(number(down)));
                for _ in 0..number(length) {
                    modules[y.saturating_mul(width).saturating_add(x)] = Color::Dark;
                    x = x.saturating_add(1);
                }
            }
        }
        modules
    }

    #[test]
    fn a_code_is_one_path_of_its_dark_modules() {
        let longest = longest();
        for (text, most) in [(&longest[..400], 16 << 10), (&*longest, 64 << 10)] {
            let code = QrCode::new(text).unwrap();
            let svg = svg(&code);
            println!("{} bytes are {} bytes of SVG", text.len(), svg.len());
            assert!(svg.len() < most, "{}", svg.len());
            let (_, path) = svg.split_once("<path stroke=\"#000\" d=\"").unwrap();
            let (path, _) = path.split_once('"').unwrap();
            assert!(drawn(path, code.width()) == code.to_colors(), "another code is drawn");
        }
    }

    #[tokio::test]
    async fn a_flood_is_computed_one_by_one_beside_what_else_is_served() {
        const FLOOD: usize = 32;
        let codes = Arc::new(QrCodes::default());
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begin, mut begun) = unbounded_channel();
        let (release, released) = channel();
        let released = Arc::new(Mutex::new(released));
        let mut flood = JoinSet::new();
        for _ in 0..FLOOD {
            let (codes, begin, released) =
                (Arc::clone(&codes), begin.clone(), Arc::clone(&released));
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            let compute = move || {
                let now = running.fetch_add(1, Ordering::SeqCst).saturating_add(1);
                most.fetch_max(now, Ordering::SeqCst);
                begin.send(()).unwrap();
                released.lock().unwrap().recv_timeout(LONG).unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            flood.spawn(async move { codes.compute(compute).await.is_ok() });
        }
        // The only thread that serves goes on meanwhile.
        for _ in 0..FLOOD {
            begun.recv().await.unwrap();
            release.send(()).unwrap();
        }
        while let Some(is_computed) = flood.join_next().await {
            assert!(is_computed.unwrap());
        }
        assert_eq!(most.load(Ordering::SeqCst), limits::QR_CODES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_that_waits_too_long_is_refused() {
        let codes = QrCodes::default();
        let all = u32::try_from(limits::QR_CODES).unwrap();
        let others = Arc::clone(&codes.permits).acquire_many_owned(all).await.unwrap();
        let problem = codes.draw(longest()).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(others);
        codes.draw(longest()).await.unwrap();
    }

    #[tokio::test]
    async fn only_a_payment_request_is_drawn() {
        let codes = QrCodes::default();
        let too_long = format!("{}A", longest());
        for text in ["", "cre", "https://pods.example", too_long.as_str()] {
            let problem = codes.draw(text.to_owned()).await.unwrap_err();
            assert_eq!(problem.status(), StatusCode::BAD_REQUEST, "{text}");
        }
        codes.draw("CREQB1QYQ".to_owned()).await.unwrap();
    }
}
