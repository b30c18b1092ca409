"""``kubernetes`` compute: an attempt is a Job (on several nodes a JobSet or TrainJob) in a namespace of a cluster."""
