"""What a model got wrong, or was unsure of, kept on the device until somebody brings it home. Nothing here sends."""
