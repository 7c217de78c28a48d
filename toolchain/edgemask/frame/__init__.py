"""Frame steps: from the camera's frame to the picture that the model was trained on."""
