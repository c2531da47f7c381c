//! What this client trusts: a gateway key that it was given or has used
//! before, and the models that a whitelist or an earlier use has named.
//!
//! Pure: the known-gateways file is read before and written after. Start at
//! [`Trust::judge`].

use std::collections::BTreeMap;

use protocol::Did;
use protocol::credential::Chain;
use protocol::receipt::VerifiedReceipt;

use crate::check::{self, Check, Expected, ExpectedModel, Proof, Proven, Rejection};
use crate::known::{FirstUse, KnownGateways, KnownModel};
use crate::reply::{Received, Sent};

/// Whom and what to believe.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The gateway's key, if the user gave it; then the file isn't asked.
    pub gateway: Option<Did>,
    /// What was used before.
    pub known: KnownGateways,
    /// The models that a name stands for whoever serves it.
    pub whitelist: BTreeMap<String, ExpectedModel>,
}

/// An answer that every check holds for.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its receipt.
    pub receipt: VerifiedReceipt,
    /// The gateway that vouches for the job.
    pub gateway: Did,
    /// What was believed because nothing was known yet: to be told, and remembered.
    pub first_uses: Vec<FirstUse>,
}

impl Trust {
    /// The gateway key that must answer at `authority`, if one is known.
    pub fn gateway(&self, authority: &str) -> Option<Did> {
        self.gateway.or_else(|| self.known.gateway(authority))
    }

    /// What `model` must be at `gateway`, if that is known.
    pub fn model(&self, gateway: &Did, model: &str) -> Option<ExpectedModel> {
        if let Some(listed) = self.whitelist.get(model) {
            return Some(listed.clone());
        }
        self.known.model(gateway, model).map(|known| ExpectedModel {
            digest: known.digest,
            numerics: vec![known.numerics.clone()],
        })
    }

    /// What is proven of an answer that broke off, by its latest checkpoint; none if
    /// none came.
    pub fn proven(
        &self,
        sent: &Sent,
        received: &Received,
        chain: &Chain,
    ) -> Option<Result<Proven, Rejection>> {
        let gateway = match self.gateway(&sent.authority) {
            Some(gateway) => gateway,
            None => chain.gateway().ok()?,
        };
        let model = self.model(&gateway, &sent.ask.model);
        check::proven(sent, received, chain, &Expected { gateway, model })
    }

    /// Judges an answer, and says what was used for the first time by it.
    pub fn judge(
        &self,
        sent: &Sent,
        received: &Received,
        proof: Result<&Proof, &str>,
    ) -> Result<Accepted, Rejection> {
        check::complete(sent, received)?;
        let proof = proof.map_err(|why| Check::NoChain.fails(why))?;
        let known = self.gateway(&sent.authority);
        let gateway = match known {
            Some(gateway) => gateway,
            None => first_gateway(&proof.chain)?,
        };
        let model = self.model(&gateway, &sent.ask.model);
        let expected = Expected { gateway, model };
        let receipt = check::accept(sent, received, proof, &expected)?;

        let mut first_uses = Vec::new();
        if known.is_none() {
            first_uses.push(FirstUse::Gateway {
                authority: sent.authority.clone(),
                gateway,
            });
        }
        if expected.model.is_none() {
            first_uses.push(FirstUse::Model {
                gateway,
                model: sent.ask.model.clone(),
                known: KnownModel {
                    digest: receipt.claims().model.digest,
                    numerics: receipt.claims().numerics.profile.clone(),
                },
            });
        }
        Ok(Accepted {
            receipt,
            gateway,
            first_uses,
        })
    }
}

fn first_gateway(chain: &Chain) -> Result<Did, Rejection> {
    chain
        .gateway()
        .map_err(|error| Check::Chain.fails(error.to_string()))
}
