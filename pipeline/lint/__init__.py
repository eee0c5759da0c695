"""`pipeline lint`: dvc.yaml held against the code and against params.yaml."""
