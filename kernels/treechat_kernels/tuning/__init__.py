"""Choose each kernel's tile on a device: the candidates, the measurements and the file of results."""
