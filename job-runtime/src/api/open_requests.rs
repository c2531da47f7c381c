//! The requests that can be cancelled, by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::RequestId;

use crate::mailbox::Canceller;

/// Every request from its admission to the end of its reply.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests {
    open: Mutex<HashMap<RequestId, Canceller>>,
}

/// Keeps a request in the list.
#[derive(Debug)]
pub(crate) struct Listed {
    id: RequestId,
    list: Arc<OpenRequests>,
}

impl OpenRequests {
    /// Lists a request until the result is dropped. Its id was never used before.
    pub(crate) fn list(self: &Arc<Self>, id: RequestId, canceller: Canceller) -> Listed {
        self.open().insert(id.clone(), canceller);
        Listed {
            id,
            list: Arc::clone(self),
        }
    }

    /// False if there is no such request, or it has ended.
    pub(crate) fn cancel(&self, id: &RequestId) -> bool {
        let canceller = self.open().get(id).cloned();
        canceller.is_some_and(|canceller| canceller.cancel())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<RequestId, Canceller>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.open().remove(&self.id);
    }
}
