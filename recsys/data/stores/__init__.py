"""What a prepared data set holds: timelines, engagements, requests, vocabularies. No torch."""
