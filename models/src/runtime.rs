//! ONNX Runtime: loaded from a shared library at run time, one environment a process, sessions from it.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session};
use ort::value::{DynValue, Tensor};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::weights::Weights;
use crate::graph::{Blocks, Built, Filled, Initializer};
use crate::priority::standing_back;
use crate::{Failure, Stop};

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA where the runtime has it and a device answers, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// Demanded: an error at start where it is absent, never a silent CPU.
    Cuda(i32),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|id| id.parse().ok())
                .filter(|id| *id >= 0)
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text}` is no device: expected `auto`, `cpu` or `cuda:N`")),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("ONNX Runtime can't be loaded from `{}`; `make build` fetches it", path.display())]
    Load {
        path: PathBuf,
        #[source]
        source: ort::LoadDynamicError,
    },
    #[error("the library at `{}` is no ONNX Runtime", path.display())]
    NotOnnxRuntime {
        path: PathBuf,
        #[source]
        source: Option<libloading::Error>,
    },
    #[error("device `cuda:{device}` is demanded, but this ONNX Runtime can't use it; use `--device cpu`")]
    CudaAbsent {
        device: i32,
        #[source]
        source: ort::Error,
    },
    #[error("ONNX Runtime can't open {what}")]
    Session {
        what: String,
        #[source]
        source: ort::Error,
    },
    #[error("ONNX Runtime could not be set up")]
    Environment(#[source] ort::Error),
    /// Weights that the session is given could not be read.
    #[error(transparent)]
    Weights(Box<CheckpointError>),
    #[error("no thread could be started for {what}")]
    Thread {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

impl From<CheckpointError> for RuntimeError {
    fn from(error: CheckpointError) -> Self {
        Self::Weights(Box::new(error))
    }
}

pub struct Runtime {
    /// Every session is made from it; it must outlive them all.
    environment: Environment,
    version: String,
    cuda: Option<i32>,
    threads: usize,
}

impl Runtime {
    /// Loads the library at `path`, once a process. `threads` bounds each session's own pool.
    pub fn load(path: &Path, device: DeviceChoice, threads: usize) -> Result<Arc<Self>, RuntimeError> {
        // An absolute path: ort tries relative ones beside the executable first.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        // `init_from` before any other ort call: without it a missing library panics at first use.
        let environment = ort::init_from(&path)
            .map_err(|source| RuntimeError::Load { path: path.clone(), source })?
            .with_name("shieldgate")
            .with_telemetry(false)
            .build()
            .map_err(RuntimeError::Environment)?;
        let version = version_of(&path)?;
        let cuda = match device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(device) => match probe_cuda(&environment, device) {
                Ok(()) => Some(device),
                Err(source) => return Err(RuntimeError::CudaAbsent { device, source }),
            },
            DeviceChoice::Auto => probe_cuda(&environment, 0).ok().map(|()| 0),
        };
        Ok(Arc::new(Self { environment, version, cuda, threads }))
    }

    /// `onnxruntime 1.32.0`, as verdicts name it: results differ between versions.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `cpu` or `cuda:N`.
    pub fn device(&self) -> String {
        self.cuda.map_or_else(|| "cpu".to_owned(), |device| format!("cuda:{device}"))
    }

    /// A session over an ONNX file that carries its own weights.
    pub fn session_from_file(&self, path: &Path) -> Result<Session, RuntimeError> {
        self.session(|| format!("`{}`", path.display()), |mut builder| builder.commit_from_file(path))
    }

    /// A session over a graph in memory and the weights it was built over.
    pub fn session_from_graph(&self, graph: &Built, weights: &Weights) -> Result<Session, RuntimeError> {
        let mut values = Vec::new();
        for blocks in &graph.blocks {
            values.extend(initializers(blocks, weights)?);
        }
        let folder = weights.folder().to_string_lossy();
        self.session(
            || format!("a graph over the weights in `{folder}`"),
            |builder| {
                let key = "session.model_external_initializers_file_folder_path";
                let mut builder = builder.with_config_entry(key, &folder)?;
                for (name, value) in values {
                    builder = builder.with_initializer(name, value)?;
                }
                builder.commit_from_memory(&graph.onnx)
            },
        )
    }

    /// Made on a thread that stands back: the session's pool inherits that.
    fn session(
        &self,
        what: impl Fn() -> String,
        open: impl FnOnce(SessionBuilder) -> ort::Result<Session> + Send,
    ) -> Result<Session, RuntimeError> {
        standing_back("onnxruntime", || open(self.builder()?))
            .map_err(|source| RuntimeError::Thread { what: what(), source })?
            .map_err(|source| RuntimeError::Session { what: what(), source })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        // Between the parts of a run its threads spin, for to wake one up takes as long as a small part. A gate waits
        // for uploads most of the time, and that must cost nothing: with the run the spinning ends.
        let builder = Session::builder(&self.environment)?
            .with_intra_threads(self.threads)?
            .with_intra_op_spinning(true)?
            .with_config_entry("session.force_spinning_stop", "1")?;
        Ok(match self.cuda {
            // The CPU provider is never registered by hand: that turns its arena off.
            None => builder,
            Some(device) => builder.with_execution_providers([ort::ep::CUDA::default()
                .with_device_id(device)
                .build()
                .error_on_failure()])?,
        })
    }
}

/// A weight in blocks as the values of the initializers that it fills; no number is copied.
fn initializers(blocks: &Blocks, of: &Weights) -> Result<Vec<(String, DynValue)>, RuntimeError> {
    let value = |value: ort::Result<DynValue>| value.map_err(RuntimeError::Environment);
    match &blocks.filled {
        Filled::Unpacked(Initializer { name, dims }) => {
            let numbers = of.unpack(&blocks.tensor)?;
            let numbers = Tensor::from_array((dims.clone(), numbers)).map(Tensor::into_dyn);
            Ok(vec![(name.clone(), value(numbers)?)])
        }
        Filled::Packed { weights, scales, zero_points } => {
            let packed = of.pack(&blocks.tensor)?;
            let bytes = |place: &Initializer, bytes: Vec<u8>| {
                let tensor = Tensor::from_array((place.dims.clone(), bytes)).map(Tensor::into_dyn);
                Ok::<_, RuntimeError>((place.name.clone(), value(tensor)?))
            };
            let factors = Tensor::from_array((scales.dims.clone(), packed.scales)).map(Tensor::into_dyn);
            let mut values = vec![bytes(weights, packed.weights)?, (scales.name.clone(), value(factors)?)];
            if let Some(zero_points) = zero_points {
                values.push(bytes(zero_points, packed.zero_points)?);
            }
            Ok(values)
        }
    }
}

fn probe_cuda(environment: &Environment, device: i32) -> ort::Result<()> {
    Session::builder(environment)?.with_execution_providers([ort::ep::CUDA::default()
        .with_device_id(device)
        .build()
        .error_on_failure()])?;
    Ok(())
}

/// `OrtGetApiBase()->GetVersionString()`, which ort keeps to itself.
fn version_of(path: &Path) -> Result<String, RuntimeError> {
    let refuse = |source| RuntimeError::NotOnnxRuntime { path: path.to_path_buf(), source };
    // SAFETY: the library is the one ort has just loaded and checked, so this only adds a reference
    // to it; `OrtGetApiBase` has this signature in every release and returns a static table.
    let version = unsafe {
        let library = libloading::Library::new(path).map_err(|error| refuse(Some(error)))?;
        let get_base: libloading::Symbol<'_, unsafe extern "system" fn() -> *const ort::sys::OrtApiBase> =
            library.get(b"OrtGetApiBase").map_err(|error| refuse(Some(error)))?;
        let base = get_base();
        if base.is_null() {
            return Err(refuse(None));
        }
        CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned()
    };
    Ok(format!("onnxruntime {version}"))
}

/// Run options that end the run when `stop` is raised; `Failure::TimedOut` if it already is.
pub(crate) fn stoppable(stop: &Stop) -> Result<Arc<RunOptions>, Failure> {
    let options = Arc::new(RunOptions::new().map_err(|error| Failure::Runtime(error.to_string()))?);
    let held = Arc::clone(&options);
    stop.on_raise(move || {
        if let Err(error) = held.terminate() {
            tracing::warn!(%error, "a run could not be told to end");
        }
    });
    if stop.is_raised() { Err(Failure::TimedOut) } else { Ok(options) }
}

/// What an error of a run means: the stop that was raised, or a failure of the runtime.
pub(crate) fn failure(error: &ort::Error, stop: &Stop) -> Failure {
    if stop.is_raised() { Failure::TimedOut } else { Failure::Runtime(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_says_what_to_do() {
        let error = Runtime::load(Path::new("/nowhere/libonnxruntime.so"), DeviceChoice::Cpu, 1)
            .err()
            .expect("nothing is there");
        assert!(error.to_string().contains("make build"), "{error}");
    }

    #[test]
    fn devices_are_read_as_documented() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x"] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }
}
