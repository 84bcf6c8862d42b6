"""Runs the network on a device: the only folder of workers that imports torch and ONNX Runtime."""
