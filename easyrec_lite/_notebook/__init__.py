"""What a notebook shows: configs, charts, drawings, progress. Everything that comes from files is escaped."""
