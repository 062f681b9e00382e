"""Data sets: a generated one of any size (`taobao_like`) and preparers of public ones (`movielens`)."""
