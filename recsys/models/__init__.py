"""One LightningModule per system."""
