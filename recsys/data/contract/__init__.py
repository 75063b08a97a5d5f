"""What a log and a prepared data set consist of: columns, tasks, features, times. No torch."""
