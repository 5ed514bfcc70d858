"""zpull: the OCI client that downloads every needed byte once, and proves every byte it keeps."""

__version__ = "0.1.0"
