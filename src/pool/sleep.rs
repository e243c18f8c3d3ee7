//! Sleep: a pool gives the device's memory to others for a while, and its buffers stay where they
//! are.

use std::fmt;
use std::time::{Duration, Instant};

use super::core::Core;
use super::drain::Reclaim;
use super::kept::{Copies, Kept};
use super::sleeper::State;
use super::stream_pool::Pool;
use crate::error::{CudaError, Error};
use crate::memory::{CANNOT_SUSPEND, MemoryKind};
use crate::profile::range;
use crate::stream::{CaptureStatus, Stream};
use crate::sync::{RwLockReadGuard, thread};
use crate::timeline::{Stalled, WaitError};

/// What becomes of the contents of a pool's memory while it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contents {
    /// They are copied to pinned memory, and back when the pool wakes: of live buffers, and of what
    /// lies in slabs with them.
    Kept,
    /// They are undefined when the pool wakes, as those of a new buffer.
    Dropped,
}

/// What a pool gave away when it fell asleep. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slept {
    /// Memory that was unmapped.
    pub released: usize,
    /// Pinned memory that holds the contents.
    pub kept: usize,
}

/// A pool did not fall asleep, or did not wake. Nothing is lost; another call may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SleepError {
    /// A stream was not done with the memory before the deadline: the pool is awake.
    Busy(Stalled),
    /// The driver or the system refused a call, or the library the request.
    Failed {
        /// The error.
        error: Error,
        /// Whether the pool sleeps now. Buffers and their contents are as they were in both cases.
        is_asleep: bool,
    },
}

impl Pool {
    /// Unmaps all memory of the pool, for others to use, when the device is done with it; waits for
    /// that at most `limit`. Buffers stay alive, with their addresses, and have memory again after
    /// [`wake`](Self::wake).
    ///
    /// Everything that was submitted by now to streams that have used the pool is waited for, and
    /// contents are copied on `stream`. Memory that no live buffer holds is given back for good.
    ///
    /// While the pool sleeps:
    ///
    /// * allocations and [`prewarm`](Self::prewarm) are [`AllocError::Asleep`], copies and fills of
    ///   its buffers [`Error::Asleep`];
    /// * buffers can be dropped, on any thread, and their memory does not come back;
    /// * [`trim`](Self::trim), statistics and reports work; what is unmapped counts as
    ///   [`asleep`](crate::slab::PoolStats::asleep) and not as reserved;
    /// * it can be dropped or closed, without a call for the memory.
    ///
    /// Work that uses the addresses by other means, as graphs and kernels do, must be submitted on
    /// streams that the pool knows, by now or after it woke: to addresses without memory it is a
    /// fault of the device. An executable graph that names buffers is of use again after `wake`.
    ///
    /// Only memory of a device that is mapped piece by piece can sleep, and that no transport has
    /// registered. That of the host is where contents are kept.
    ///
    /// [`AllocError::Asleep`]: crate::slab::AllocError::Asleep
    ///
    /// # Errors
    ///
    /// The pool is awake and as it was, unless the error [says](SleepError::is_asleep) otherwise.
    ///
    /// * [`SleepError::Busy`]: a stream that has used the pool is not done, or cannot say so: it is
    ///   being captured, was forgotten, or is the per-thread default stream of another thread.
    /// * [`SleepError::Failed`] with [`Error::Asleep`]: the pool sleeps already; with
    ///   [`NOT_SUPPORTED`](CudaError::NOT_SUPPORTED): its memory cannot be unmapped; with
    ///   [`STREAM_CAPTURE_UNSUPPORTED`](CudaError::STREAM_CAPTURE_UNSUPPORTED): `stream` is being
    ///   captured.
    /// * [`SleepError::Failed`]: the host has too little memory for the contents, or the driver
    ///   refused a call.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// # let stream = wharf::Stream::new(&context)?;
    /// use std::time::Duration;
    /// use wharf::memory::DeviceMemoryResource;
    /// use wharf::pool::{Buffer, Contents, Pool};
    ///
    /// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
    /// let weights: Buffer<u8> = pool.alloc(64 << 20, &stream)?;
    /// weights.fill(7, &stream)?;
    /// let slept = pool.sleep(Contents::Kept, &stream, Duration::from_secs(10))?;
    /// assert_eq!((slept.released, slept.kept), (64 << 20, 64 << 20));
    /// assert!(pool.alloc::<u8>(1, &stream).is_err());
    /// pool.wake(&stream)?;
    /// let mut back = vec![0; 64 << 20];
    /// weights.copy_to_slice(&mut back, &stream)?;
    /// assert!(back.iter().all(|byte| *byte == 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # References
    ///
    /// [Memory management][VA] of addresses.
    ///
    /// [VA]: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html
    #[doc(alias = "cuMemUnmap")]
    pub fn sleep(
        &self,
        contents: Contents,
        stream: &Stream,
        limit: Duration,
    ) -> Result<Slept, SleepError> {
        let _range = range!("pool::sleep");
        let core = &*self.core;
        core.noted(core.sleep(contents, stream, limit))
    }

    /// Maps memory at the addresses of a pool that sleeps, and copies contents that were kept back
    /// on `stream`. Returns how many bytes were mapped, when the contents are there for all
    /// streams; 0 for a pool that is awake.
    ///
    /// # Errors
    ///
    /// [`SleepError::Failed`]: the driver has no memory, or refused a call. The pool sleeps, with
    /// all that it has kept, and another call may succeed.
    #[doc(alias = "cuMemMap")]
    pub fn wake(&self, stream: &Stream) -> Result<usize, SleepError> {
        let core = &*self.core;
        // Without the lock, which copies and fills would take for a sleep.
        if !core.gate.is_asleep() {
            return Ok(0);
        }
        let _range = range!("pool::wake");
        core.noted(core.wake(stream))
    }

    /// Whether the pool sleeps, or is on its way there or back.
    pub fn is_asleep(&self) -> bool {
        self.core.gate.is_asleep()
    }
}

impl Core {
    fn sleep(
        &self,
        contents: Contents,
        stream: &Stream,
        limit: Duration,
    ) -> Result<Slept, SleepError> {
        self.check_sleeper(stream)?;
        let mut state = self.sleeper.0.write();
        if state.is_some() {
            return Err(SleepError::Failed { error: Error::Asleep, is_asleep: true });
        }
        self.gate.set_asleep(true);
        let mut copies = Copies { stream, keeps: contents == Contents::Kept, kept: None };
        let outcome = self.quiesce(stream, limit).and_then(|()| {
            self.upstream.sleep(&mut copies).map_err(|interrupted| SleepError::Failed {
                error: interrupted.error,
                is_asleep: interrupted.is_asleep,
            })
        });
        let kept = copies.kept;
        let slept =
            outcome.map(|released| Slept { released, kept: kept.as_ref().map_or(0, Kept::bytes) });
        if slept.is_ok() || slept.is_err_and(|error| error.is_asleep()) {
            *state = Some(State { kept });
        } else {
            self.gate.set_asleep(false);
        }
        slept
    }

    fn wake(&self, stream: &Stream) -> Result<usize, SleepError> {
        let mut state = self.sleeper.0.write();
        if state.is_none() {
            return Ok(0);
        }
        self.check_sleeper(stream).map_err(SleepError::in_sleep)?;
        // What was dropped meanwhile needs no memory.
        self.drain_in_turn();
        let copies = Copies { stream, keeps: true, kept: state.take().and_then(|it| it.kept) };
        match self.upstream.wake(&copies) {
            Ok(bytes) => {
                self.gate.set_asleep(false);
                Ok(bytes)
            }
            Err(interrupted) => {
                *state = Some(State { kept: copies.kept });
                Err(SleepError::Failed { error: interrupted.error, is_asleep: true })
            }
        }
    }

    /// Takes note of an error, as of those of all other calls to the driver.
    fn noted<T>(&self, outcome: Result<T, SleepError>) -> Result<T, SleepError> {
        outcome.inspect_err(|error| {
            if let SleepError::Failed { error, .. } = error {
                self.note_error(*error);
            }
        })
    }

    /// Holds the pool awake, for a copy or fill of its memory.
    ///
    /// # Errors
    ///
    /// [`Error::Asleep`]: it sleeps, or a thread is putting it to sleep or waking it.
    pub(super) fn stay_awake(&self) -> Result<Awake<'_>, Error> {
        self.sleeper.0.try_read().filter(|state| state.is_none()).map(Awake).ok_or(Error::Asleep)
    }

    /// Makes sure that the memory can be unmapped, and copied on a stream.
    fn check_sleeper(&self, stream: &Stream) -> Result<(), SleepError> {
        let resource = self.upstream.resource();
        // A peer may write to what a transport has registered, so contents that were copied are not
        // those that are there later.
        let is_registered = || resource.registrations().is_some();
        if resource.kind() != MemoryKind::Device || resource.is_whole() || is_registered() {
            return Err(CANNOT_SUSPEND.into());
        }
        resource.check_fork()?;
        stream.check()?;
        resource.kind().check_reach(resource.ordinal(), || resource.peers(), stream.context())?;
        if stream.capture_status()? != CaptureStatus::Inactive {
            let call = stream.context().driver().api().memcpy_dtoh_async.name();
            let code = CudaError::STREAM_CAPTURE_UNSUPPORTED;
            return Err(Error::Driver { call, code }.into());
        }
        Ok(())
    }

    /// Waits until the device is done with all that was submitted to streams of the pool, and gives
    /// back what no handle holds.
    fn quiesce(&self, stream: &Stream, limit: Duration) -> Result<(), SleepError> {
        let start = Instant::now();
        let streams: Vec<_> = self.slots.all().filter_map(|(_, slot)| slot.now()).collect();
        // Markers for all streams first: one comes while another is waited for.
        let own = stream.timeline()?.id();
        for (timeline, ticket) in &streams {
            timeline.advance(*ticket, timeline.id() == own)?;
        }
        for (timeline, ticket) in &streams {
            match timeline.wait(*ticket, limit.saturating_sub(start.elapsed())) {
                Ok(()) => {}
                Err(WaitError::Deadline(stalled)) => return Err(SleepError::Busy(stalled)),
                Err(WaitError::Driver(error)) => return Err(error.into()),
            }
        }
        self.drain_in_turn();
        Ok(())
    }

    /// Gives back what the device is done with; waits for a thread that takes lists apart.
    fn drain_in_turn(&self) {
        let turn = loop {
            match self.turn() {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        self.drain(&turn, Reclaim::All, None);
    }
}

/// As long as this lives, the pool does not fall asleep.
#[derive(Debug)]
#[must_use]
pub(super) struct Awake<'a>(
    #[expect(dead_code, reason = "held")] RwLockReadGuard<'a, Option<State>>,
);

impl SleepError {
    /// Whether the pool sleeps after the call.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        matches!(self, Self::Failed { is_asleep: true, .. })
    }

    /// The same of a pool that slept before.
    fn in_sleep(self) -> Self {
        match self {
            Self::Failed { error, .. } => Self::Failed { error, is_asleep: true },
            busy @ Self::Busy(_) => busy,
        }
    }
}

impl From<Error> for SleepError {
    fn from(error: Error) -> Self {
        Self::Failed { error, is_asleep: false }
    }
}

impl fmt::Display for SleepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(stalled) => write!(f, "the pool is awake, since it is in use: {stalled}"),
            Self::Failed { error: Error::Asleep, .. } => f.write_str("the pool sleeps already"),
            Self::Failed { error, is_asleep } => {
                let state = if *is_asleep { "asleep" } else { "awake" };
                write!(
                    f,
                    "the pool is {state}, with all its contents, since a call failed: {error}"
                )
            }
        }
    }
}

impl std::error::Error for SleepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Busy(_) => None,
            Self::Failed { error, .. } => Some(error),
        }
    }
}
