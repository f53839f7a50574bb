"""What the scripts share: patch files, target environments, applying."""
