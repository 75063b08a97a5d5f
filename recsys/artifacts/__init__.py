"""Exported models: manifest, TorchScript, quantisation; needs neither trainer nor TorchRec."""
