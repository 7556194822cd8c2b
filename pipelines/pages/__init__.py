"""HTML pages without external resources: their document, images, charts and the 3D view of an asset."""
