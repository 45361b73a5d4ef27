//! Two questions for one: addresses of IPv4 where there are none of IPv6.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::DecodeError;

use super::outcome::{Asker, Outcome, Pending, Translation};
use super::responder::Responder;
use super::response::Response;
use crate::manner::Transport;
use crate::name::wire_of;
use crate::site::Block;
use crate::site::dns64::Dns64;

impl Responder {
    /// Answers a question for IPv6.
    pub(super) fn translate(
        &self,
        block: &Block,
        rules: Dns64,
        response: Response,
        request: &Message,
        query: &Query,
        asker: Asker,
    ) -> Result<Outcome, DecodeError> {
        let v6 = Response::to(request, query.clone(), Transport::Tcp, asker.manner);
        let outcome = self.look_up(block, v6, request, query, asker)?;
        if matches!(outcome, Outcome::Silence) {
            return Ok(outcome);
        }
        let (request, query) = (request.clone(), query.clone());
        Ok(match self.go_on(Translation { rules, response, request, query, asker, v6: None }, outcome) {
            Ok(response) => Outcome::Reply(response),
            Err(pending) => Outcome::Pending(pending),
        })
    }

    /// Takes in what was said, or waits for it.
    fn go_on(&self, translation: Translation, outcome: Outcome) -> Result<Response, Box<Pending>> {
        match outcome {
            Outcome::Reply(said) => self.translated(translation, said),
            Outcome::Pending(mut pending) => {
                pending.translation = Some(Box::new(translation));
                Err(pending)
            }
            // Whoever may not ask for IPv4 gets what there is.
            Outcome::Silence | Outcome::Transfer(_) => Ok(match translation.v6 {
                Some((v6, maker)) => translation.response.replace(Dns64::native(v6), maker),
                None => translation.response.failed(ResponseCode::Refused),
            }),
        }
    }

    /// Takes in what was said about IPv6, or then about IPv4, which may have to be waited for.
    pub(super) fn translated(&self, mut translation: Translation, said: Response) -> Result<Response, Box<Pending>> {
        let Some((message, maker)) = said.into_message() else {
            return Ok(translation.response.failed(ResponseCode::ServFail));
        };
        let answer = match translation.v6.take() {
            Some((v6, _)) => translation.rules.synthesize(v6, message),
            None if translation.rules.is_wanted(&message) => {
                translation.v6 = Some((message, maker));
                return self.ask_for_v4(translation);
            }
            None => Dns64::native(message),
        };
        Ok(translation.response.replace(answer, maker))
    }

    fn ask_for_v4(&self, translation: Translation) -> Result<Response, Box<Pending>> {
        let Translation { request, query, asker, .. } = &translation;
        let query = Query::query(query.name().clone(), RecordType::A);
        let v4 = Response::to(request, query.clone(), Transport::Tcp, asker.manner);
        let site = self.site();
        let block = site.block(&wire_of(query.name()).to_ascii_lowercase());
        match block.map(|block| self.look_up(block, v4, request, &query, *asker)) {
            Some(Ok(outcome)) => self.go_on(translation, outcome),
            _ => Ok(translation.response.failed(ResponseCode::ServFail)),
        }
    }
}
