"""SASRec and HSTU: the next item from learned item ids."""
