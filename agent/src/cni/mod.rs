//! The socket that the CNI plugin talks to: addresses, attachments, their journal.
