//! Versions of the CNI specification.

use std::fmt;

use crate::Error;

/// A version that this plugin serves, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0, which brought CHECK
    V0_4_0,
    /// 1.0.0
    V1_0_0,
    /// 1.1.0, which brought STATUS and GC
    V1_1_0,
}

impl Version {
    /// Every version that is served.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads `cniVersion`. None at all means 0.1.0, as in libcni.
    ///
    /// # Errors
    /// Code 1 when it is not served.
    pub fn parse(text: Option<&str>) -> Result<Self, Error> {
        let text = text.filter(|t| !t.is_empty()).unwrap_or("0.1.0");
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| Error::Version {
            version: text.to_owned(),
            reason: format!("use one of {}", Self::ALL.map(Self::as_str).join(", ")),
        })
    }

    /// Fails when the verb did not exist in this version.
    ///
    /// # Errors
    /// Code 1.
    pub fn require(self, least: Self, verb: &str) -> Result<(), Error> {
        if self >= least {
            return Ok(());
        }
        Err(Error::Version {
            version: self.as_str().to_owned(),
            reason: format!("config version does not allow {verb}, which requires {least}"),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_reads_as_it_is_written() {
        for version in Version::ALL {
            assert_eq!(Version::parse(Some(version.as_str())).unwrap(), version);
        }
        assert_eq!(Version::parse(None).unwrap(), Version::V0_1_0);
        assert_eq!(Version::parse(Some("")).unwrap(), Version::V0_1_0);
        for wrong in ["1", "1.0", "1.2.0", "v1.0.0", "0.3.2", " 1.0.0"] {
            let error = Version::parse(Some(wrong)).unwrap_err();
            assert_eq!(error.code(), 1, "{wrong}");
            assert!(error.to_string().contains("1.1.0"), "{error}");
        }
    }

    #[test]
    fn c12_verbs_need_the_version_that_brought_them() {
        assert!(Version::V0_4_0.require(Version::V0_4_0, "CHECK").is_ok());
        let error = Version::V0_3_1.require(Version::V0_4_0, "CHECK").unwrap_err();
        assert_eq!(error.code(), 1);
        assert!(error.to_string().contains("does not allow CHECK"), "{error}");
    }
}
