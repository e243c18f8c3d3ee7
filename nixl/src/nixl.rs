//! NIXL behind [`Transport`].

#![expect(unsafe_code, reason = "NIXL's trait of memory has an unsafe function")]

use std::fmt::{self, Debug};

use nixl_sys::{
    MemType, MemoryRegion, NixlDescriptor, NixlError, NotificationMap, OptArgs, RegistrationHandle,
    XferDescList, XferOp, XferRequest, XferStatus,
};

use crate::error::Error;
use crate::options::AgentOptions;
use crate::transport::{Operation, Place, Plan, Registration, Request, Segment, Transport};

/// An agent of NIXL's with one backend.
pub(crate) struct Nixl {
    agent: nixl_sys::Agent,
}

impl Nixl {
    pub(crate) fn new(name: &str, options: &AgentOptions) -> Result<Self, Error> {
        // Its functions end the process where the library is missing.
        if nixl_sys::is_stub() {
            return Err(Error::Library);
        }
        let agent = nixl_sys::Agent::new(name).map_err(failed("nixlAgent"))?;
        let (_, mut parameters) = agent
            .get_plugin_params(&options.backend)
            .map_err(failed("nixlAgent::getPluginParams"))?;
        for (key, value) in &options.parameters {
            parameters.set(key, value).map_err(failed("parameter of a backend"))?;
        }
        agent
            .create_backend(&options.backend, &parameters)
            .map_err(failed("nixlAgent::createBackend"))?;
        Ok(Self { agent })
    }
}

impl Transport for Nixl {
    fn register(&self, segment: Segment) -> Result<Box<dyn Registration>, Error> {
        let handle = self.agent.register_memory(&segment, None);
        Ok(Box::new(Registered(handle.map_err(failed("nixlAgent::registerMem"))?)))
    }

    fn metadata(&self) -> Result<Vec<u8>, Error> {
        self.agent.get_local_md().map_err(failed("nixlAgent::getLocalMD"))
    }

    fn load(&self, metadata: &[u8]) -> Result<String, Error> {
        self.agent.load_remote_md(metadata).map_err(failed("nixlAgent::loadRemoteMD"))
    }

    fn unload(&self, peer: &str) -> Result<(), Error> {
        self.agent.invalidate_remote_md(peer).map_err(failed("nixlAgent::invalidateRemoteMD"))
    }

    fn notify(&self, peer: &str, message: &[u8]) -> Result<(), Error> {
        let sent = self.agent.send_notification(peer, message, None);
        sent.map_err(failed("nixlAgent::genNotif"))
    }

    fn notifications(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let taken = || {
            let mut map = NotificationMap::new()?;
            self.agent.get_notifications(&mut map, None)?;
            let mut all = Vec::new();
            for peer in map.agents() {
                let peer = peer?.to_owned();
                for index in 0..map.get_notifications_size(&peer)? {
                    all.push((peer.clone(), map.get_notification_bytes(&peer, index)?));
                }
            }
            Ok(all)
        };
        taken().map_err(failed("nixlAgent::getNotifs"))
    }

    fn prepare(&self, plan: &Plan<'_>) -> Result<Box<dyn Request>, Error> {
        let operation = match plan.operation {
            Operation::Write => XferOp::Write,
            Operation::Read => XferOp::Read,
        };
        let made = || {
            let (local, remote) = (list(plan.local)?, list(plan.remote)?);
            let notification = plan.notification.to_vec();
            let options = notifying(&notification)?;
            let request = self.agent.create_xfer_req(
                operation,
                &local,
                &remote,
                plan.peer,
                Some(&options),
            )?;
            Ok(Transfer { agent: self.agent.clone(), request, notification })
        };
        Ok(Box::new(made().map_err(failed("nixlAgent::createXferReq"))?))
    }
}

impl Debug for Nixl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nixl").field("name", &self.agent.name()).finish_non_exhaustive()
    }
}

/// A list of ranges, all of one kind.
fn list(segments: &[Segment]) -> Result<XferDescList<'static>, NixlError> {
    let kind = segments.first().map_or(MemType::Dram, NixlDescriptor::mem_type);
    let mut list = XferDescList::new(kind)?;
    for segment in segments {
        let address = usize::try_from(segment.address).map_err(|_| NixlError::InvalidParam)?;
        list.add_desc(address, segment.len, segment.device_id());
    }
    Ok(list)
}

impl MemoryRegion for Segment {
    // NIXL asks for the number only; it is never dereferenced here.
    unsafe fn as_ptr(&self) -> *const u8 {
        std::ptr::with_exposed_provenance(usize::try_from(self.address).unwrap_or(0))
    }

    fn size(&self) -> usize {
        self.len
    }
}

impl NixlDescriptor for Segment {
    fn mem_type(&self) -> MemType {
        match self.place {
            Place::Host => MemType::Dram,
            Place::Device(_) => MemType::Vram,
        }
    }

    fn device_id(&self) -> u64 {
        match self.place {
            Place::Host => 0,
            Place::Device(ordinal) => u64::from(ordinal),
        }
    }
}

struct Registered(RegistrationHandle);

impl Registration for Registered {
    fn end(mut self: Box<Self>) -> Result<(), Error> {
        self.0.deregister().map_err(failed("nixlAgent::deregisterMem"))
    }
}

struct Transfer {
    agent: nixl_sys::Agent,
    request: XferRequest,
    notification: Vec<u8>,
}

impl Request for Transfer {
    fn post(&mut self) -> Result<bool, Error> {
        let posted = notifying(&self.notification)
            .and_then(|options| self.agent.post_xfer_req(&self.request, Some(&options)));
        posted.map(|is_under_way| !is_under_way).map_err(failed("nixlAgent::postXferReq"))
    }

    fn poll(&mut self) -> Result<bool, Error> {
        let status = self.agent.get_xfer_status(&self.request);
        status
            .map(|status| status == XferStatus::Success)
            .map_err(failed("nixlAgent::getXferStatus"))
    }
}

/// Has the peer told when a transfer is complete.
fn notifying(message: &[u8]) -> Result<OptArgs, NixlError> {
    let mut options = OptArgs::new()?;
    options.set_has_notification(true)?;
    options.set_notification_message(message)?;
    Ok(options)
}

/// NIXL's answer as an error of the crate's.
fn failed(call: &'static str) -> impl FnOnce(NixlError) -> Error {
    move |error| Error::nixl(call, error)
}
