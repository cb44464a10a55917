"""The owners: one actor for each image name, kernel name and VM."""
