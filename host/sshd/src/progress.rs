//! How far connections have got that have not authenticated yet, and which one of them gives its place
//! to a newcomer.

use crate::early_drop::random;
use tokio::sync::watch;

/// How far a connection has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    #[default]
    Connected,
    /// The client has sent its version.
    Greeted,
    KeysExchanged,
    /// The client has tried a password or a key.
    Attempted,
    Authenticated,
    /// Another connection has its place.
    Dropped,
}

/// How far one connection has got, for all who need it.
#[derive(Clone, Debug, Default)]
pub struct Progress(watch::Sender<Stage>);

impl Progress {
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Whether it gets there: a connection that is dropped gets no further.
    pub fn reach(&self, stage: Stage) -> bool {
        self.0.send_if_modified(|reached| {
            let is_further = *reached < stage;
            if is_further {
                *reached = stage;
            }
            is_further
        })
    }

    /// Of two at random, drops the one that has not got as far. A client that is further than all
    /// others is safe, and of a hundred that wait each is dropped with two percent at the most. The oldest,
    /// or the one that has got least far of all, would soon be a customer's where somebody connects again
    /// and again.
    pub fn drop_one<'a, T>(waiting: impl IntoIterator<Item = (T, &'a Self)>) -> Option<T> {
        Self::drop_one_by(waiting, random)
    }

    pub(crate) fn drop_one_by<'a, T>(
        waiting: impl IntoIterator<Item = (T, &'a Self)>,
        mut random: impl FnMut() -> u32,
    ) -> Option<T> {
        let mut all: Vec<(T, &Self)> = waiting.into_iter().collect();
        let two = [draw(&mut all, random()), draw(&mut all, random())];
        let (first, progress) = two.into_iter().flatten().min_by_key(|(_, it)| it.stage())?;
        progress.drop_unless_authenticated();
        Some(first)
    }

    fn drop_unless_authenticated(&self) {
        self.0.send_if_modified(|reached| {
            let is_waiting = *reached < Stage::Authenticated;
            if is_waiting {
                *reached = Stage::Dropped;
            }
            is_waiting
        });
    }

    pub(crate) async fn authenticated(&self) {
        let _ = self.0.subscribe().wait_for(|it| *it == Stage::Authenticated).await.is_ok();
    }

    pub async fn dropped(&self) {
        let _ = self.0.subscribe().wait_for(|it| *it == Stage::Dropped).await.is_ok();
    }
}

fn draw<T>(all: &mut Vec<T>, random: u32) -> Option<T> {
    let count = u32::try_from(all.len()).ok()?;
    let index = usize::try_from(random.checked_rem(count)?).ok()?;
    Some(all.swap_remove(index))
}
